"""embedding_sum and pooling at every level."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests import oracle
from tests.support import LAYOUTS, assert_same_bits, assert_within, gamma, normal, sizes_around


def ids(rng, high, n):
    return rng.integers(0, high, n).astype(np.int32)


@pytest.mark.parametrize("with_position", [True, False], ids=["position", ""])
@pytest.mark.parametrize("with_type", [True, False], ids=["type", ""])
def test_embedding_sum_rounds_each_sum_once(table, rng, with_position, with_type):
    for columns in sizes_around(table.lanes, 2 * table.lanes, 384)[1:]:
        word = normal(rng, 50, columns)
        position = normal(rng, 20, columns) if with_position else None
        token_type = normal(rng, 2, columns) if with_type else None
        for n in (0, 1, 9):
            at = ids(rng, 50, n), ids(rng, 20, n), ids(rng, 2, n)
            out = table.embedding_sum(word, position, token_type, *at)
            exact = oracle.embedding_sum(word, position, token_type, *at)
            size = oracle.embedding_sum(
                *[None if t is None else np.abs(t) for t in (word, position, token_type)], *at
            )
            assert_within(out, exact, gamma(2) * size)


def test_embedding_sum_without_type_ids_uses_type_zero(table, rng):
    word, position, token_type = normal(rng, 9, 20), normal(rng, 9, 20), normal(rng, 2, 20)
    at = ids(rng, 9, 5), ids(rng, 9, 5)
    out = table.embedding_sum(word, position, token_type, *at, None)
    zeros = np.zeros(5, np.int32)
    assert_same_bits(out, table.embedding_sum(word, position, token_type, *at, zeros))


@pytest.mark.parametrize("bad", [-1, 9, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("which", ["word", "position", "token_type"])
def test_embedding_sum_refuses_an_id_out_of_range(rng, which, bad):
    tables = {name: normal(rng, 9, 4) for name in ("word", "position", "token_type")}
    at = {name: np.zeros(3, np.int32) for name in tables}
    at[which][1] = bad
    ids = at["word"], at["position"], at["token_type"]
    with pytest.raises(IndexError, match=rf"{which}.*{bad}.*9"):
        _core.KernelTable(_core.active_isa()).embedding_sum(*tables.values(), *ids)


# Pooling

# The number of rounding errors: of the sum (if any), the weights, and the division.
POOLING_ROUNDINGS = {
    "cls": lambda n: 0,  # noqa: ARG005
    "lasttoken": lambda n: 0,  # noqa: ARG005
    "max": lambda n: 0,  # noqa: ARG005
    "mean": lambda n: n + 2,
    "mean_sqrt_len_tokens": lambda n: n + 3,
    "weightedmean": lambda n: n + 4,
}


def test_every_pooling_mode_has_a_bound():
    assert sorted(_core.pooling_modes()) == sorted(POOLING_ROUNDINGS)


@pytest.mark.parametrize("mode", _core.pooling_modes())
def test_pooling_is_within_its_bound(table, rng, mode):
    for columns in sizes_around(table.lanes, 2 * table.lanes, 4 * table.lanes, 384)[1:]:
        for tokens in (1, 2, 7, 256):
            x = normal(rng, tokens, columns)
            roundings = POOLING_ROUNDINGS[mode](tokens)
            size = np.abs(oracle.pool(mode, np.abs(x)))
            exact = oracle.pool(mode, x)
            assert_within(table.pool(mode, x), exact, gamma(roundings) * size)


def test_max_pooling_of_negative_numbers_stays_negative(table, rng):
    x = -np.abs(normal(rng, 3, 37)) - 1
    assert_same_bits(table.pool("max", x), x.max(axis=0))


@pytest.mark.parametrize("mode", ["max", "mean", "mean_sqrt_len_tokens", "weightedmean"])
def test_pooling_passes_nan_on_in_its_column_only(table, rng, mode):
    x = normal(rng, 5, 37)
    clean = table.pool(mode, x)
    x[2, 36] = np.nan
    y = table.pool(mode, x)
    assert np.isnan(y[36])
    assert_same_bits(y[:36], clean[:36])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooling_accepts_any_memory_layout(table, rng, layout):
    x = normal(rng, 7, 37)
    assert_same_bits(table.pool("mean", layout(x)), table.pool("mean", x))


def test_pooling_of_no_token_is_refused():
    with pytest.raises(ValueError, match="x"):
        _core.KernelTable(_core.active_isa()).pool("mean", np.zeros((0, 4), np.float32))


def test_unknown_pooling_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"median.*weightedmean"):
        _core.KernelTable(_core.active_isa()).pool("median", np.zeros((2, 4), np.float32))

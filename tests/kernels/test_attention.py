"""attention for one head of one sequence, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from tests import oracle
from tests.support import (
    LAYOUTS,
    U,
    assert_same_bits,
    assert_within,
    gamma,
    normal,
    random_qkv,
    sizes_around,
)


def attention_bound(q, k, v, scale):
    """The rounding error of a score is a relative error of its exponential, and so of its weight and, through
    the sum, of all weights of the row. Softmax and the product with v add their own rounding errors."""
    head_dim, keys = q.shape[1], k.shape[0]
    size = np.abs(q).astype(np.float64) @ np.abs(k).T.astype(np.float64) * scale
    scores = oracle.linear(q, k) * scale
    spread = scores.max(axis=1, keepdims=True) - scores
    in_exponent = (gamma(head_dim + 2) * size + U * (spread + np.abs(scores))).max(axis=1)
    relative = 2 * np.expm1(in_exponent) + 2 * gamma(keys + 12)
    return relative[:, None] * (oracle.softmax(scores) @ np.abs(v)) + 1e-37


def check(table, q, k, v, scale):
    out = table.attention(q, k, v, softmax_scale=scale)
    assert out.shape == (len(q), v.shape[1])
    assert_within(out, oracle.attention(q, k, v, scale), attention_bound(q, k, v, scale))


def test_attention_is_within_its_bound_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for queries in sizes_around(mr, 2 * mr)[1:]:
        for keys in sizes_around(table.lanes, nr, 2 * nr)[1:]:
            check(table, *random_qkv(rng, queries, keys, 12), 0.3)


@pytest.mark.parametrize("head_dim", [1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 80, 128, 256])
def test_attention_is_within_its_bound_for_any_head_dim(table, rng, head_dim):
    check(table, *random_qkv(rng, 13, 29, head_dim), head_dim**-0.5)


@pytest.mark.parametrize("length", [511, 1025, 2500])
def test_attention_is_within_its_bound_for_long_sequences(table, rng, length):
    check(table, *random_qkv(rng, 9, length, 32), 32**-0.5)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_attention_is_within_its_bound_for_any_shape(isa, queries, keys, head_dim, seed):
    qkv = random_qkv(np.random.default_rng(seed), queries, keys, head_dim)
    check(_core.KernelTable(isa), *qkv, head_dim**-0.5)


def test_attention_of_no_query_is_empty(table, rng):
    q, k, v = random_qkv(rng, 0, 5, 8)
    assert table.attention(q, k, v, softmax_scale=1.0).shape == (0, 8)


def test_attention_without_keys_is_zero(table, rng):
    q, k, v = random_qkv(rng, 3, 0, 8)
    np.testing.assert_array_equal(table.attention(q, k, v, softmax_scale=1.0), np.zeros((3, 8)))


def test_attention_with_one_key_is_its_value(table, rng):
    q, k, v = random_qkv(rng, 9, 1, 37)
    assert_same_bits(table.attention(q, k, v, softmax_scale=1.0), v.repeat(9, axis=0))


def test_attention_with_very_different_scores_selects_one_value(table, rng):
    # exp of a score difference of 1e4 is 0, so one row of v remains, without overflow.
    q, k, v = np.eye(8, dtype=np.float32) * 1e4, np.eye(8, dtype=np.float32), normal(rng, 8, 8)
    assert_same_bits(table.attention(q, k, v, softmax_scale=1.0), v)


def test_attention_with_no_difference_between_keys_is_the_mean(table, rng):
    _, _, v = random_qkv(rng, 1, 100, 16)
    out = table.attention(np.ones((3, 16), np.float32), np.ones_like(v), v, softmax_scale=1.0)
    expected = v.astype(np.float64).mean(axis=0)
    assert_within(out, expected[None].repeat(3, 0), 2 * gamma(112) * np.abs(v).mean(axis=0))


def test_attention_row_does_not_depend_on_other_queries(table, rng):
    mr, _ = table.gemm_tile
    q, k, v = random_qkv(rng, 3 * mr + 1, 77, 32)
    whole = table.attention(q, k, v, softmax_scale=0.2)
    for m in range(1, len(q)):
        assert_same_bits(table.attention(q[:m], k, v, softmax_scale=0.2), whole[:m])
        assert_same_bits(table.attention(q[m:], k, v, softmax_scale=0.2), whole[m:])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_attention_keeps_a_bad_query_in_its_row(table, rng, poison):
    q, k, v = random_qkv(rng, 17, 40, 12)
    clean = table.attention(q, k, v, softmax_scale=0.2)
    q[5, 3] = poison
    out = table.attention(q, k, v, softmax_scale=0.2)
    assert np.isnan(out[5]).any()
    assert_same_bits(np.delete(out, 5, 0), np.delete(clean, 5, 0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_accepts_any_memory_layout(table, rng, layout):
    q, k, v = random_qkv(rng, 11, 37, 20)
    out = table.attention(layout(q), layout(k), layout(v), softmax_scale=0.2)
    assert_same_bits(out, table.attention(q, k, v, softmax_scale=0.2))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"q": np.zeros((3, 5), np.float32)}, "[qk]"),
        ({"q": np.zeros(4, np.float32)}, "q"),
        ({"k": np.zeros((5, 4), np.float32)}, "[kv]"),
        ({"v": np.zeros((7, 4), np.float32)}, "v"),
    ],
)
def test_attention_names_the_argument_that_does_not_fit(change, name):
    arguments = {name: np.zeros((6, 4), np.float32) for name in "qkv"}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        _core.KernelTable(_core.active_isa()).attention(
            **{**arguments, **change}, softmax_scale=1.0
        )

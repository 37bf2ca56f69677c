"""Tables of words in int8 and bfloat16: rows are widened when they are looked up."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests.support import assert_same_bits, normal, sizes_around

ROWS = 30
CU = np.array([0, 7, 20], np.int32)


def looked_up(table, ids, **options):
    words = _core.Embeddings(table, **options)
    return _core.TransformerStack([], None, words).encode(ids, CU)


def some_ids(rng):
    return rng.integers(0, ROWS, CU[-1]).astype(np.int32)


def in_int8(weight):
    values, scale = _core.quantize_weight(weight, np.empty(0, np.int32))
    return values, scale, np.empty(0, np.int32), np.empty((len(weight), 0), np.float32), False


def dequantized(values, scale):
    groups = np.repeat(scale, _core.s8_group(), axis=1)[:, : values.shape[1]]
    return values.astype(np.float32) * groups


@pytest.mark.parametrize("columns", sizes_around(16, 128, 256)[1:])
def test_rows_in_int8_have_the_bits_of_the_dequantized_table(active_isa, rng, columns):  # noqa: ARG001
    weight, ids = normal(rng, ROWS, columns), some_ids(rng)
    table = in_int8(weight)
    assert_same_bits(looked_up(table, ids), dequantized(*table[:2])[ids])


@pytest.mark.parametrize("columns", sizes_around(16, 128)[1:])
def test_rows_in_bfloat16_have_the_bits_of_the_rounded_table(active_isa, rng, columns):  # noqa: ARG001
    weight, ids = normal(rng, ROWS, columns), some_ids(rng)
    rounded = _core.Linear.in_bfloat16(weight).weight()
    assert_same_bits(looked_up(weight, ids, bfloat16=True), rounded[ids])


def test_nan_stays_nan_in_bfloat16(rng):
    weight, ids = normal(rng, ROWS, 20), some_ids(rng)
    weight[ids[3], 5] = np.float32(np.nan)
    weight.view(np.uint32)[ids[3], 6] = 0x7F800001  # a NaN in the lower half only
    assert np.isnan(looked_up(weight, ids, bfloat16=True)[3, 5:7]).all()


def test_positions_and_token_types_are_added_to_rows_in_int8(rng):
    weight, ids = normal(rng, ROWS, 40), some_ids(rng)
    rest = normal(rng, 20, 40), normal(rng, 2, 40)
    table = in_int8(weight)
    narrow, wide = (
        _core.TransformerStack([], None, _core.Embeddings(words, *rest)).encode(ids, CU)
        for words in (table, dequantized(*table[:2]))
    )
    assert_same_bits(narrow, wide)


def test_a_table_returns_its_numbers_in_its_type(rng):
    weight = normal(rng, ROWS, 200)
    table = in_int8(weight)
    for kept, given in zip(_core.Embeddings(table).word(), table[:2], strict=True):
        np.testing.assert_array_equal(kept, given, strict=True)
    halves = _core.Embeddings(weight, bfloat16=True).word()
    wide = (halves.astype(np.uint32) << 16).view(np.float32)
    assert_same_bits(wide, _core.Linear.in_bfloat16(weight).weight())


def test_a_table_in_int8_has_no_outliers(rng):
    weight, outliers = normal(rng, ROWS, 40), np.array([3], np.int32)
    values, scale = _core.quantize_weight(weight, outliers)
    with pytest.raises(ValueError, match="no outliers, got 1"):
        _core.Embeddings((values, scale, outliers, weight[:, 3:4].copy(), False))

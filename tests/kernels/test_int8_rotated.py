"""int8 with rotated weights: groups of columns are multiplied by a Hadamard matrix, and pairs of codes are bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix
from tests import oracle
from tests.support import assert_same_bits, assert_within, gamma, normal, sizes_around

GROUP, LIMIT = _core.s8_group(), _core.s8_pair_limit()
CODES = 208
# The sign of element (i, j) depends on the common bits of i and j; columns 16 apart are combined.
HADAMARD = np.kron([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)], np.eye(16))
NONE = np.empty(0, np.int32)


def rotated(x, matrix=HADAMARD):
    """H x for each whole group, in float64."""
    whole = x.shape[1] // GROUP * GROUP
    groups = x[:, :whole].reshape(len(x), -1, GROUP).astype(np.float64)
    return np.concatenate([(groups @ matrix.T).reshape(len(x), whole), x[:, whole:]], axis=1)


def per_column(scale, cols):
    return np.repeat(scale, GROUP, axis=1)[:, :cols].astype(np.float64)


def pairs_of(values):
    wide = np.pad(values.astype(int), ((0, 0), (0, values.shape[1] % 2)))
    return np.abs(wide[:, ::2] + wide[:, 1::2])


def product_of_codes(table, a, values, scale):
    """The product of the dequantized rotated operands in float64, and a bound of float32's rounding errors."""
    q, scale_a, minimum = table.quantize_rows(a, True)
    cols = a.shape[1]
    steps = per_column(scale_a, cols)
    rows = per_column(minimum, cols) + steps * q[:, :cols]
    weight = values * per_column(scale, cols)
    size = oracle.linear(np.abs(rows) + 255 * steps, np.abs(weight))
    tiles = 2.0**-15 if table.isa == "avx512_amx" else 0.0
    bound = (2 * gamma(8 + 4 * scale.shape[1]) + tiles) * size
    return oracle.linear(rows, weight), bound


def test_gemm_s8_is_the_product_of_the_dequantized_operands(table, rng):
    for rows in [1, 3, 4, 5, 37]:
        for k in [1, 20, *sizes_around(GROUP)[1:], 384, 577, 1536]:
            a = normal(rng, rows, k)
            values, scale = _core.quantize_weight(normal(rng, 53, k), None, True)
            expected, bound = product_of_codes(table, a, values, scale)
            assert_within(table.gemm_s8(a, values, scale, rotated=True), expected, bound)


@pytest.mark.parametrize(
    "pair", [(127, 127), (-127, -127), (127, 30), (-127, -30), (127, -127), (79, 78)]
)
def test_sums_do_not_saturate_within_the_limit_or_beyond_it(table, pair):
    """The rows of a partial group are not rotated, so their codes are 0 and 208."""
    cols = GROUP - 2
    a = np.full((9, cols), float(CODES), np.float32)
    a[:, -1] = 0
    values = np.tile(np.array(pair, np.int8), (50, cols // 2))
    y = table.gemm_s8(a, values, np.ones((50, 1), np.float32), rotated=True)
    np.testing.assert_array_equal(y, a @ values.T.astype(np.float32))


@given(st.integers(1, 30), st.integers(1, 60), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_products_of_any_shape_and_any_codes_keep_their_bound(isa, m, n, k, seed):
    rng, table = np.random.default_rng(seed), _core.KernelTable(isa)
    values = rng.integers(-127, 128, (n, k)).astype(np.int8)
    scale = np.ones((n, -(-k // GROUP)), np.float32)
    a = normal(rng, m, k)
    expected, bound = product_of_codes(table, a, values, scale)
    assert_within(table.gemm_s8(a, values, scale, rotated=True), expected, bound)


def test_every_level_quantizes_to_the_same_bytes(table, rng):
    first = _core.KernelTable(_core.available_isas()[0])
    for cols in [1, *sizes_around(GROUP)[1:], 1000]:
        x = normal(rng, 17, cols, scale=3.0)
        found, expected = (each.quantize_rows(x, True) for each in (table, first))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_rotated_rows_are_within_half_a_step(table, rng):
    for cols in sizes_around(table.lanes, GROUP, 2 * GROUP)[1:]:
        x = normal(rng, 9, cols)
        q, scale, minimum = table.quantize_rows(x, True)
        steps = per_column(scale, cols)
        found = per_column(minimum, cols) + steps * q[:, :cols]
        size = rotated(np.abs(x), np.abs(HADAMARD)) + CODES * steps
        assert_within(found, rotated(x), 0.5 * steps + gamma(8) * size)
        assert q.max() == (CODES if cols > 1 else 0)


def test_rows_do_not_depend_on_other_rows(table, rng):
    a = normal(rng, 70, 700)
    weight, outliers = normal(rng, table.gemm_tile[1] + 5, 700), np.array([5, 650], np.int32)
    values, scale = _core.quantize_weight(weight, outliers, True)
    arguments = (values, scale, None, outliers, weight[:, outliers], True)
    whole = table.gemm_s8(a, *arguments)
    for m in [1, 2, 3, 4, 5, 33, 64, 69]:
        assert_same_bits(table.gemm_s8(a[:m], *arguments), whole[:m])
        assert_same_bits(table.gemm_s8(a[m:], *arguments), whole[m:])


@pytest.mark.parametrize("columns", [[0, 3, GROUP - 1, GROUP, 600, 699], range(64)])
def test_outliers_are_multiplied_as_they_are(table, rng, columns):
    a, weight = normal(rng, 37, 700), normal(rng, 53, 700)
    outliers = np.array(columns, np.int32)
    a[:, outliers] *= 1000
    values, scale = _core.quantize_weight(weight, outliers, True)
    y = table.gemm_s8(a, values, scale, None, outliers, weight[:, outliers], True)
    rest = a.copy()
    rest[:, outliers] = 0
    expected, bound = product_of_codes(table, rest, values, scale)
    size = oracle.linear(np.abs(a[:, outliers]), np.abs(weight[:, outliers]))
    tiles = 2.0**-15 if table.isa == "avx512_amx" else 0.0
    bound += (gamma(14 + len(outliers)) + tiles) * size
    assert_within(y, expected + oracle.linear(a[:, outliers], weight[:, outliers]), bound)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("outliers", [[], [7]])
def test_a_bad_value_stays_in_its_row(table, rng, poison, outliers):
    a, weight = normal(rng, 40, 300), normal(rng, 60, 300)
    columns = np.array(outliers, np.int32)
    values, scale = _core.quantize_weight(weight, columns, True)
    arguments = (values, scale, None, columns, weight[:, columns], True)
    clean = table.gemm_s8(a, *arguments)
    bad = a.copy()
    bad[33, [7, 23]] = poison
    y = table.gemm_s8(bad, *arguments)
    assert not np.isfinite(y[33]).any()
    assert_same_bits(np.delete(y, 33, 0), np.delete(clean, 33, 0))


def test_pairs_of_weights_are_within_the_limit(rng):
    for cols in [2, GROUP - 1, GROUP, GROUP + 1, 700]:
        values, _ = _core.quantize_weight(np.abs(normal(rng, 20, cols)), None, True)
        assert pairs_of(values).max() <= LIMIT
        assert np.abs(values.astype(int)).max() <= 127


def test_rotated_weights_are_within_half_a_step(rng):
    for cols in [1, GROUP - 1, GROUP, GROUP + 1, 700]:
        weight = normal(rng, 20, cols)
        values, scale = _core.quantize_weight(weight, None, True)
        whole = cols // GROUP * GROUP
        exact = np.concatenate([rotated(weight)[:, :whole] / 8, weight[:, whole:]], axis=1)
        steps = per_column(scale, cols)
        # Where both of a pair are rounded up beyond the limit, one is a step smaller.
        at_limit = np.repeat(pairs_of(values) >= LIMIT - 1, 2, axis=1)[:, :cols]
        assert_within(values * steps, exact, np.where(at_limit, 1.5, 0.501) * steps)


def test_dequantized_weights_are_rotated_back(rng):
    weight, outliers = normal(rng, 20, 3 * GROUP + 40), np.array([1, 200, 400], np.int32)
    parts = _core.quantize_weight(weight, outliers, True)
    matrix = Int8Matrix(*parts, outliers, np.ascontiguousarray(weight[:, outliers]), True)
    error = matrix.float32() - weight
    assert_same_bits(matrix.float32()[:, outliers], weight[:, outliers])
    assert np.sqrt((error**2).mean()) < 0.02
    assert np.abs(error).max() < 0.1

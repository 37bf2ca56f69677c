"""int8: exact integer sums, quantized rows and weights within half a step, the epilogues of gemm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from tests import oracle
from tests.support import TINY, assert_same_bits, assert_within, gamma, normal, sizes_around

GROUP = _core.s8_group()


def groups_of(cols):
    return -(-cols // GROUP)


def per_column(scale, cols):
    """(rows, groups) -> (rows, cols)"""
    return np.repeat(scale, GROUP, axis=1)[:, :cols].astype(np.float64)


def dequantized_rows(table, x):
    q, scale, minimum = table.quantize_rows(x)
    cols = x.shape[1]
    return per_column(minimum, cols) + per_column(scale, cols) * q[:, :cols]


def quantized(rng, n, k):
    """A weight, its codes and its scales."""
    weight = normal(rng, n, k)
    return weight, *_core.quantize_weight(weight)


# Exact sums


def exact(table, codes, values):
    """The kernel compared with int64: with scales of 1, and 0 and 255 in every group, the range is 255."""
    k = codes.shape[1]
    for begin in range(0, k, GROUP):
        codes[:, begin] = 0
        codes[:, min(begin + GROUP, k) - 1] = 255
    ones = np.ones((len(values), groups_of(k)), np.float32)
    y = table.gemm_s8(codes.astype(np.float32), values, ones)
    expected = codes.astype(np.int64) @ values.astype(np.int64).T
    assert np.abs(expected).max(initial=0) < 2**24, "beyond what float32 can show exactly"
    np.testing.assert_array_equal(y, expected)


def test_integer_sums_are_exact_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for m in [0, 1, 2, 3, 4, 5, mr + 1, 33]:
        for n in [1, *sizes_around(table.lanes, nr, 2 * nr)[2:]]:
            codes = rng.integers(0, 256, (m, 21))
            exact(table, codes, rng.integers(-127, 128, (n, 21)).astype(np.int8))


def test_integer_sums_are_exact_for_any_depth(table, rng):
    for k in [2, 3, 4, 5, *sizes_around(GROUP, 2 * GROUP, 576, 1152)[2:]]:
        exact(
            table,
            rng.integers(0, 256, (5, k)),
            rng.integers(-128, 128, (table.gemm_tile[1] + 1, k)).astype(np.int8),
        )


@pytest.mark.parametrize("rows", [1, 3, 9])  # few rows may use another code path
@pytest.mark.parametrize("code", [0, 255])
@pytest.mark.parametrize("values", [(127, 127), (-127, -127), (-128, -128), (127, -128)])
def test_integer_sums_do_not_saturate(table, rows, code, values):
    # 255 * 127 + 255 * 127 is out of range for int16; vpmaddubsw would saturate.
    codes = np.full((rows, GROUP), code)
    exact(table, codes, np.tile(np.array(values, np.int8), (50, GROUP // 2)))


def test_integer_sums_cancel_exactly(table):
    # The partial sums are large and the result small, so any lost bit shows.
    codes = np.full((9, 4 * GROUP), 255)
    values = np.full((50, 4 * GROUP), 127, np.int8)
    values[:, 1::2] = -127
    values[:, ::8] = 126
    exact(table, codes, values)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(2, 400), st.integers(0, 2**32 - 1))
def test_integer_sums_are_exact_for_any_shape(isa, m, n, k, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (m, k))
    exact(_core.KernelTable(isa), codes, rng.integers(-128, 128, (n, k)).astype(np.int8))


def test_every_level_quantizes_to_the_same_bytes(table, rng):
    first = _core.KernelTable(_core.available_isas()[0])
    for cols in [1, GROUP - 1, GROUP, GROUP + 1, 1000]:
        x = normal(rng, 17, cols, scale=3.0)
        for ours, theirs in zip(table.quantize_rows(x), first.quantize_rows(x), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# Rows


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_quantized_rows_are_within_half_a_step(table, rng, scale):
    for cols in sizes_around(1, table.lanes, GROUP, 2 * GROUP)[1:]:
        x = normal(rng, 9, cols, scale=scale)
        step = per_column(table.quantize_rows(x)[1], cols)
        # In addition to half a step: the rounding errors of the difference, its quotient and the step.
        bound = 0.5 * step + 8 * 2.0**-24 * (255 * step)
        assert_within(dequantized_rows(table, x), x.astype(np.float64), bound)


def test_quantized_zero_rows_are_zero(table):
    q, scale, minimum = table.quantize_rows(np.zeros((3, 70), np.float32))
    assert not q.any()
    assert not minimum.any()
    assert (scale > 0).all()


@pytest.mark.parametrize("value", [-7.25, 1e-40, 1e30])
def test_quantized_constant_rows_are_exact(table, value):
    x = np.full((3, 70), value, np.float32)
    np.testing.assert_array_equal(dequantized_rows(table, x), x)


def test_quantized_subnormal_rows_are_within_the_least_normal_number(table, rng):
    x = (rng.standard_normal((3, 70)) * 1e-40).astype(np.float32)
    assert_within(dequantized_rows(table, x), x, TINY)


def test_values_of_one_sign_use_all_codes(table, rng):
    q, _, minimum = table.quantize_rows(np.abs(normal(rng, 5, GROUP)) + 3)
    assert (minimum >= 3).all()
    assert (q.min(1) == 0).all()
    assert (q.max(1) == 255).all()


def test_a_large_value_affects_only_its_own_group(table, rng):
    x = normal(rng, 4, 3 * GROUP)
    _, before, _ = table.quantize_rows(x)
    x[:, GROUP + 5] = 1000
    _, after, _ = table.quantize_rows(x)
    assert_same_bits(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] > 100 * before[:, 1]).all()


def test_codes_beyond_the_last_column_are_zero(table, rng):
    assert not table.quantize_rows(normal(rng, 3, GROUP + 1))[0][:, GROUP + 1 :].any()


# Weights


def test_quantized_weights_are_within_half_a_step(rng):
    for cols in [1, GROUP - 1, GROUP, GROUP + 1, 700]:
        weight, values, scale = quantized(rng, 20, cols)
        steps = per_column(scale, cols)
        assert_within(values * steps, weight, 0.5 * steps + 2.0**-23 * np.abs(weight))
        assert values.min() >= -127


def test_quantizing_weights_again_changes_nothing(rng):
    _, values, scale = quantized(rng, 20, 500)
    weight = (values * per_column(scale, 500)).astype(np.float32)
    np.testing.assert_array_equal(_core.quantize_weight(weight)[0], values)


def test_zero_and_subnormal_weights_are_quantized(rng):
    weight = np.zeros((3, 40), np.float32)
    weight[1] = (rng.standard_normal(40) * 1e-40).astype(np.float32)
    values, scale = _core.quantize_weight(weight)
    assert not values[0].any()
    assert (scale >= TINY).all()
    assert_within(values * per_column(scale, 40), weight, TINY)


def test_outlier_columns_do_not_affect_the_scales(rng):
    weight = normal(rng, 20, 500)
    spoilt = weight.copy()
    outliers = np.array([0, 7, GROUP, 499], np.int32)
    spoilt[:, outliers] *= 1e6
    values, scale = _core.quantize_weight(spoilt, outliers)
    assert not values[:, outliers].any()
    weight[:, outliers] = 0
    expected_values, expected_scale = _core.quantize_weight(weight)
    np.testing.assert_array_equal(values, expected_values)
    assert_same_bits(scale, expected_scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_place(bad):
    weight = np.ones((3, 4), np.float32)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match=r"weight\[1, 2\] is -?(nan|inf); only finite"):
        _core.quantize_weight(weight)


@pytest.mark.parametrize(
    ("outliers", "message"),
    [
        ([4], r"outliers\[0\] is 4, the weight has 4 columns"),
        ([-1], r"outliers\[0\] is -1"),
        ([2, 1], "outliers must ascend, got 2 then 1 at index 1"),
        ([1, 1], "outliers must ascend"),
        (range(65), "outliers has 65 columns, at most 64 are allowed"),
    ],
)
def test_outliers_that_are_not_columns_are_refused(outliers, message):
    with pytest.raises(ValueError, match=message):
        _core.quantize_weight(np.ones((3, 4), np.float32), np.array(outliers))


# Products


def factor_error(table):
    """The relative error of products of minima and outliers, whose factors have 16 bits on tiles."""
    return 2.0**-15 if table.isa == "avx512_amx" else 0.0


def product_of_codes(table, a, values, scale):
    """The product of the dequantized operands in float64, and the bound of float32's rounding errors."""
    weight = values * per_column(scale, values.shape[1])
    _, scale_a, minimum = table.quantize_rows(a)
    rows = dequantized_rows(table, a)
    size = oracle.linear(np.abs(rows), np.abs(weight))
    largest = oracle.linear(np.abs(rows) + 255 * per_column(scale_a, a.shape[1]), np.abs(weight))
    sums = np.add.reduceat(weight, range(0, weight.shape[1], GROUP), axis=1)
    minima = oracle.linear(np.abs(minimum).astype(np.float64), np.abs(sums))
    bound = gamma(8 + 4 * scale.shape[1]) * (size + largest) + factor_error(table) * minima
    return oracle.linear(rows, weight), bound


def test_gemm_s8_is_the_product_of_the_dequantized_operands(table, rng):
    for k in [1, 20, GROUP + 1, 576, 577, 1536]:
        a = normal(rng, 37, k)
        _, values, scale = quantized(rng, 53, k)
        expected, bound = product_of_codes(table, a, values, scale)
        assert_within(table.gemm_s8(a, values, scale), expected, bound)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_gemm_s8_of_tiny_and_huge_rows_keeps_its_bound(table, rng, size):
    a = normal(rng, 37, 577, scale=size)
    _, values, scale = quantized(rng, 53, 577)
    expected, bound = product_of_codes(table, a, values, scale)
    assert_within(table.gemm_s8(a, values, scale), expected, bound)


@pytest.mark.parametrize(
    "columns", [[0, 3, GROUP - 1, GROUP, 600, 699], range(64), range(2, 700, 11)]
)
def test_gemm_s8_multiplies_outliers_as_they_are(table, rng, columns):
    a, weight = normal(rng, 37, 700), normal(rng, 53, 700)
    outliers = np.array(columns, np.int32)
    a[:, outliers] *= 1000
    values, scale = _core.quantize_weight(weight, outliers)
    y = table.gemm_s8(a, values, scale, None, outliers, weight[:, outliers])
    rest = a.copy()
    rest[:, outliers] = 0
    expected, bound = product_of_codes(table, rest, values, scale)
    exact_part = oracle.linear(a[:, outliers], weight[:, outliers])
    size = oracle.linear(np.abs(a[:, outliers]), np.abs(weight[:, outliers]))
    bound += (gamma(14 + len(outliers)) + factor_error(table)) * size
    assert_within(y, expected + exact_part, bound)


def test_gemm_s8_row_does_not_depend_on_other_rows(table, rng):
    a = normal(rng, 70, 700)
    weight, values, scale = quantized(rng, table.gemm_tile[1] + 5, 700)
    outliers = np.array([5, 650], np.int32)
    arguments = (values, scale, None, outliers, weight[:, outliers])
    whole = table.gemm_s8(a, *arguments)
    for m in [1, 2, 3, 4, 5, 31, 32, 33, 64, 69]:
        assert_same_bits(table.gemm_s8(a[:m], *arguments), whole[:m])
        assert_same_bits(table.gemm_s8(a[m:], *arguments), whole[m:])


def test_gemm_s8_of_zero_rows_is_the_bias(table, rng):
    _, values, scale = quantized(rng, 50, 300)
    bias = normal(rng, 50)
    y = table.gemm_s8(np.zeros((5, 300), np.float32), values, scale, bias)
    assert_same_bits(y, np.tile(bias, (5, 1)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_gemm_s8_keeps_a_bad_value_in_its_row(table, rng, poison):
    a = normal(rng, 40, 300)
    _, values, scale = quantized(rng, 60, 300)
    clean = table.gemm_s8(a, values, scale)
    for row in [0, 3, 33, 39]:
        bad = a.copy()
        bad[row, 7] = poison
        y = table.gemm_s8(bad, values, scale)
        assert not np.isfinite(y[row]).any()
        assert_same_bits(np.delete(y, row, 0), np.delete(clean, row, 0))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("outliers", [[7], range(0, 300, 9)])
def test_gemm_s8_keeps_a_bad_outlier_in_its_row(table, rng, poison, outliers):
    a, weight = normal(rng, 40, 300), normal(rng, 60, 300)
    outliers = np.array(outliers, np.int32)
    values, scale = _core.quantize_weight(weight, outliers)
    arguments = (values, scale, None, outliers, weight[:, outliers])
    clean = table.gemm_s8(a, *arguments)
    for row, column in [(0, outliers[0]), (33, outliers[-1])]:
        bad = a.copy()
        bad[row, column] = poison
        y = table.gemm_s8(bad, *arguments)
        assert not np.isfinite(y[row]).any()
        assert_same_bits(np.delete(y, row, 0), np.delete(clean, row, 0))


@pytest.mark.parametrize("activation", _core.activations())
def test_gemm_s8_activation_has_the_bits_of_the_separate_step(table, rng, activation):
    for m, n in [(1, 1), (5, table.gemm_tile[1] + 1)]:
        a, bias = normal(rng, m, 33), normal(rng, n)
        _, values, scale = quantized(rng, n, 33)
        fused = table.gemm_s8(a, values, scale, bias, activation=activation)
        separate = table.activation(activation, table.gemm_s8(a, values, scale, bias).ravel())
        assert_same_bits(fused, separate.reshape(m, n))


def test_gemm_s8_residual_and_norm_have_the_bits_of_the_separate_steps(table, rng):
    for m, n in [(1, 1), (37, table.gemm_tile[1] + 1)]:
        a, bias, residual = normal(rng, m, 700), normal(rng, n), normal(rng, m, n)
        _, values, scale = quantized(rng, n, 700)
        fused = table.gemm_s8(
            a, values, scale, bias, residual=residual, norm_weight=bias, norm_bias=bias, eps=1e-12
        )
        summed = table.gemm_s8(a, values, scale, bias) + residual
        assert_same_bits(fused, table.layer_norm(summed, bias, bias, eps=1e-12))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": np.zeros((3, 5), np.float32)}, ValueError, "their columns differ"),
        ({"values": np.zeros((6, 4), np.uint8)}, TypeError, "values must be an array of int8"),
        ({"values": np.zeros((0, 4), np.int8)}, ValueError, "values must have 2 dimensions"),
        ({"scale": np.ones((6, 2), np.float32)}, ValueError, r"scale must have shape \(6, 1\)"),
        ({"scale": np.ones((6, 1))}, TypeError, "scale must be float32, got float64"),
        ({"outliers": np.array([4])}, ValueError, "4, the weight has 4 columns"),
        ({"outliers": np.array([1, 2])}, ValueError, r"outlier_weight must have shape \(6, 2\)"),
        ({"residual": np.zeros((3, 5), np.float32)}, ValueError, "residual"),
    ],
)
def test_gemm_s8_names_the_argument_that_does_not_fit(change, error, message):
    table = _core.KernelTable(_core.active_isa())
    arguments = {
        "a": np.zeros((3, 4), np.float32),
        "values": np.zeros((6, 4), np.int8),
        "scale": np.ones((6, 1), np.float32),
        "outlier_weight": np.ones((6, 1), np.float32),
    }
    with pytest.raises(error, match=message):
        table.gemm_s8(**{**arguments, **change})

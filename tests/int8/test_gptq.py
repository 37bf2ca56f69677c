"""Rounding of weights that is fitted to the inputs of a sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.int8 import gptq
from tests.support import normal

GROUP = _core.s8_group()
NONE = np.empty(0, np.int32)


def quantize_weight_for(moments, weight, outliers, rotated=False):
    return gptq.quantize_weight_for(moments, weight, outliers, rotated)


def dequantized(codes, scales):
    return codes * np.repeat(scales, GROUP, axis=1)[:, : codes.shape[1]].astype(np.float64)


def related_inputs(rng, rows, cols):
    """Inputs with a few main directions and a little noise."""
    return normal(rng, rows, 8) @ normal(rng, 8, cols) + 0.1 * normal(rng, rows, cols)


def moments_of(x):
    return (x.T @ x).astype(np.float64)


def output_error(x, weight, codes, scales):
    return np.linalg.norm(x @ (dequantized(codes, scales) - weight).T)


@pytest.mark.parametrize("cols", [1, 5, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP])
def test_unrelated_inputs_leave_plain_rounding(rng, cols):
    weight = normal(rng, 7, cols)
    codes, scales = quantize_weight_for(np.eye(cols), weight, NONE)
    plain, plain_scales = _core.quantize_weight(weight)
    np.testing.assert_allclose(scales, plain_scales, rtol=1e-6)
    # float32 may have a tie where float64 has none.
    assert np.abs(codes.astype(int) - plain).max() <= 1
    assert (codes != plain).mean() < 1e-2


@pytest.mark.parametrize("cols", [40, GROUP, 2 * GROUP + 30])
def test_related_inputs_lose_less_than_by_plain_rounding(rng, cols):
    weight, x = normal(rng, 30, cols), related_inputs(rng, 400, cols)
    ours = output_error(x, weight, *quantize_weight_for(moments_of(x), weight, NONE))
    plain = output_error(x, weight, *_core.quantize_weight(weight))
    assert ours < 0.7 * plain


def test_other_inputs_of_the_same_kind_lose_less_too(rng):
    weight, basis = normal(rng, 30, GROUP), normal(rng, 8, GROUP)
    seen, unseen = (normal(rng, 500, 8) @ basis + 0.1 * normal(rng, 500, GROUP) for _ in range(2))
    ours = output_error(unseen, weight, *quantize_weight_for(moments_of(seen), weight, NONE))
    assert ours < 0.7 * output_error(unseen, weight, *_core.quantize_weight(weight))


def test_outliers_that_a_rotation_does_not_reach_have_no_codes(rng):
    cols, outliers = 2 * GROUP + 30, np.array([7, 2 * GROUP + 3, 2 * GROUP + 20], np.int32)
    weight, x = normal(rng, 9, cols), related_inputs(rng, 200, cols)
    codes, _ = quantize_weight_for(moments_of(x), weight, outliers, rotated=True)
    assert not codes[:, outliers[1:]].any()


def test_outliers_have_no_codes_and_take_no_error(rng):
    cols, outliers = 50, np.array([3, 17], np.int32)
    weight, x = normal(rng, 9, cols), related_inputs(rng, 200, cols)
    codes, scales = quantize_weight_for(moments_of(x), weight, outliers)
    assert not codes[:, outliers].any()
    # The result is the same without these columns.
    rest = np.setdiff1d(np.arange(cols), outliers)
    x[:, outliers] = 0
    weight[:, outliers] = 0
    alone, alone_scales = quantize_weight_for(moments_of(x), weight, outliers)
    np.testing.assert_array_equal(codes[:, rest], alone[:, rest])
    np.testing.assert_array_equal(scales, alone_scales)


@pytest.mark.parametrize("moments", ["zero", "one row", "dead column"])
def test_moments_of_few_inputs_are_enough(rng, moments):
    x = {
        "zero": np.zeros((1, 20)),
        "one row": normal(rng, 1, 20),
        "dead column": normal(rng, 90, 20),
    }
    rows = x[moments].astype(np.float32)
    rows[:, 4] = 0
    weight = normal(rng, 6, 20)
    codes, scales = quantize_weight_for(moments_of(rows), weight, NONE)
    assert np.isfinite(scales).all()
    # Each weight changes little, apart from the errors of its group that it compensates.
    assert np.abs(dequantized(codes, scales) - weight).max() < 0.5


def test_zero_weights_stay_zero(rng):
    x = related_inputs(rng, 50, 40)
    codes, scales = quantize_weight_for(moments_of(x), np.zeros((3, 40), np.float32), NONE)
    assert not codes.any()
    assert (scales > 0).all()


@given(st.integers(1, 12), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_codes_and_scales_have_the_shapes_and_range_of_plain_ones(rows, cols, seed):
    rng = np.random.default_rng(seed)
    weight, x = normal(rng, rows, cols), related_inputs(rng, 30, cols)
    codes, scales = quantize_weight_for(moments_of(x), weight, NONE)
    plain, plain_scales = _core.quantize_weight(weight)
    assert (codes.shape, codes.dtype) == (plain.shape, plain.dtype)
    assert (scales.shape, scales.dtype) == (plain_scales.shape, plain_scales.dtype)
    assert np.abs(codes.astype(int)).max() <= 127


@pytest.mark.parametrize("cols", [GROUP - 1, GROUP, 2 * GROUP + 30])
def test_rotated_codes_lose_less_than_plain_rotated_ones(rng, cols):
    weight, x = normal(rng, 30, cols), related_inputs(rng, 400, cols)
    moments = moments_of(x)
    errors = []
    for values, scale in (
        quantize_weight_for(moments, weight, NONE, rotated=True),
        _core.quantize_weight(weight, NONE, True),
    ):
        kept = np.empty((30, 0), np.float32)
        found = Int8Matrix(values, scale, NONE, kept, True).float32()
        errors.append(np.linalg.norm(x @ (found - weight).T))
    assert errors[0] < 0.7 * errors[1]


def test_rotated_codes_are_within_the_limit_of_pairs(rng):
    weight, x = np.abs(normal(rng, 30, 300)), related_inputs(rng, 400, 300)
    codes, _ = quantize_weight_for(moments_of(x), weight, NONE, rotated=True)
    wide = codes.astype(int)
    assert np.abs(wide[:, ::2] + wide[:, 1::2]).max() <= _core.s8_pair_limit()

"""layer_norm and l2_normalize at every level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from tests import oracle
from tests.support import EPS, LAYOUTS, assert_same_bits, assert_within, normal, sizes_around


def layer_norm_bound(x, weight, bias, eps):
    """The rounding error of the mean shifts all centered values, so it is counted in units of the largest
    |x|. The error of a sum of n values grows like a random walk, sqrt(n) rounding errors. The rest is a few
    rounding errors of the result and of the bias."""
    x = np.asarray(x, np.float64)
    reach = np.abs(x).max(axis=-1, keepdims=True) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    y = oracle.layer_norm(x, weight, None, eps)
    shift = 0.0 if bias is None else np.abs(bias)
    walk = 1 + math.sqrt(x.shape[-1]) / 4
    return EPS * (walk * reach * np.abs(weight) + 4 * np.abs(y) + shift)


def check(table, x, weight, bias, eps=1e-12):
    y = table.layer_norm(x, weight, bias, eps=eps)
    assert y.shape == x.shape
    expected = oracle.layer_norm(x, weight, bias, eps)
    assert_within(y, expected, layer_norm_bound(x, weight, bias, eps))


def test_layer_norm_is_within_its_bound_around_the_lanes(table, rng):
    for n in sizes_around(table.lanes, 2 * table.lanes, 4 * table.lanes, 384)[1:]:
        for rows in (0, 1, 3):
            check(table, normal(rng, rows, n), normal(rng, n), normal(rng, n))


@given(st.integers(0, 20), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_layer_norm_is_within_its_bound_for_any_shape(isa, rows, n, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, rows, n) * np.float32(rng.uniform(0.01, 100))
    check(_core.KernelTable(isa), x, normal(rng, n), normal(rng, n), eps=1e-5)


def test_layer_norm_without_bias_adds_nothing(table, rng):
    check(table, normal(rng, 5, 37), normal(rng, 37), None)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_layer_norm_survives_a_mean_far_from_zero(table, rng, mean):
    # E[x^2] - mean^2 in float32 has no correct digits at 1e4, and its root is often NaN.
    x = normal(rng, 8, 384) + np.float32(mean)
    check(table, x, np.ones(384, np.float32), np.zeros(384, np.float32))


def test_layer_norm_of_a_constant_row_is_the_bias(table, rng):
    weight, bias = normal(rng, 37), normal(rng, 37)
    x = np.array([[0.0], [3.0], [-1e10]], np.float32).repeat(37, axis=1)
    np.testing.assert_array_equal(table.layer_norm(x, weight, bias, eps=1e-12), [bias] * 3)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_layer_norm_is_within_its_bound_at_extreme_magnitudes(table, rng, scale):
    check(table, normal(rng, 4, 100, scale=scale), normal(rng, 100), normal(rng, 100))


def test_layer_norm_row_does_not_depend_on_other_rows(table, rng):
    x, weight, bias = normal(rng, 19, 101), normal(rng, 101), normal(rng, 101)
    whole = table.layer_norm(x, weight, bias)
    for m in range(1, len(x)):
        assert_same_bits(table.layer_norm(x[:m], weight, bias), whole[:m])
        assert_same_bits(table.layer_norm(x[m:], weight, bias), whole[m:])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_layer_norm_keeps_a_bad_value_in_its_row(table, rng, poison):
    x, weight = normal(rng, 5, 37), np.ones(37, np.float32)
    clean = table.layer_norm(x, weight)
    x[2, 36] = poison
    y = table.layer_norm(x, weight)
    assert np.isnan(y[2]).all()
    assert_same_bits(np.delete(y, 2, 0), np.delete(clean, 2, 0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_norm_accepts_any_memory_layout(table, rng, layout):
    x, weight, bias = normal(rng, 11, 37), normal(rng, 37), normal(rng, 37)
    y = table.layer_norm(layout(x), layout(weight), layout(bias))
    assert_same_bits(y, table.layer_norm(x, weight, bias))


def l2_bound(x):
    """The sum of squares has a relative error of at most n roundings, its root of n/2."""
    return (x.shape[-1] / 2 + 4) * EPS * np.abs(oracle.l2_normalize(x))


def test_l2_normalize_is_within_its_bound_around_the_lanes(table, rng):
    for n in sizes_around(table.lanes, 2 * table.lanes, 4 * table.lanes, 384)[1:]:
        x = normal(rng, 3, n)
        assert_within(table.l2_normalize(x), oracle.l2_normalize(x), l2_bound(x))


def test_l2_normalize_gives_unit_length(table, rng):
    y = table.l2_normalize(normal(rng, 20, 384, scale=50)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, rtol=4 * EPS)


def test_l2_normalize_leaves_a_zero_row_zero(table, rng):
    x = normal(rng, 3, 37)
    x[1] = 0
    y = table.l2_normalize(x)
    assert_same_bits(y[1], np.zeros(37, np.float32))
    assert_within(y, oracle.l2_normalize(x), l2_bound(x))


def test_l2_normalize_divides_by_no_less_than_its_eps(table):
    x = np.full((1, 4), 1e-15, np.float32)
    np.testing.assert_allclose(table.l2_normalize(x), x / np.float32(1e-12), rtol=4 * EPS)


def test_l2_normalize_row_does_not_depend_on_other_rows(table, rng):
    x = normal(rng, 9, 101)
    whole = table.l2_normalize(x)
    for m in range(1, len(x)):
        assert_same_bits(table.l2_normalize(x[m:]), whole[m:])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"x": np.zeros(4, np.float32)}, "x"),
        ({"weight": np.zeros(5, np.float32)}, "weight"),
        ({"bias": np.zeros(5, np.float32)}, "bias"),
    ],
)
def test_layer_norm_names_the_argument_that_does_not_fit(change, name):
    arguments = {"x": np.zeros((2, 4), np.float32), "weight": np.ones(4, np.float32)}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        _core.KernelTable(_core.active_isa()).layer_norm(**{**arguments, **change})

"""gemm: y = activation(a W^T + bias), optionally LayerNorm(y + residual), at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from tests import oracle
from tests.support import (
    LAYOUTS,
    TINY,
    assert_same_bits,
    assert_within,
    gamma,
    integers,
    normal,
    sizes_around,
)


def bound_of(a, weight, bias=None):
    """gamma_(K+1) sum |a||b|: the error bound for any order of K products and sums, fused or not."""
    size = oracle.linear(np.abs(a), np.abs(weight), None if bias is None else np.abs(bias))
    return gamma(a.shape[1] + 1) * size + a.shape[1] * TINY


def check(table, rng, m, n, k):
    a, weight, bias = normal(rng, m, k), normal(rng, n, k), normal(rng, n)
    y = table.gemm(a, weight, bias)
    assert y.shape == (m, n)
    assert_within(y, oracle.linear(a, weight, bias), bound_of(a, weight, bias))


def test_gemm_is_within_its_bound_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for m in sizes_around(mr, 2 * mr):
        for n in sizes_around(table.lanes, nr, 2 * nr):
            check(table, rng, m, n, 19)


def test_gemm_is_within_its_bound_for_any_depth(table, rng):
    mr, nr = table.gemm_tile
    for k in sizes_around(table.lanes, 64, 384, 512, 1536):
        check(table, rng, mr + 1, nr + 1, k)


@given(st.integers(0, 70), st.integers(1, 130), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_gemm_is_within_its_bound_for_any_shape(isa, m, n, k, seed):
    check(_core.KernelTable(isa), np.random.default_rng(seed), m, n, k)


def test_gemm_of_whole_numbers_is_exact(table, rng):
    a, weight, bias = (integers(rng, -31, 31, *s) for s in [(37, 1537), (101, 1537), (101,)])
    expected = a.astype(np.int64) @ weight.astype(np.int64).T + bias.astype(np.int64)
    np.testing.assert_array_equal(table.gemm(a, weight, bias), expected)


def test_gemm_without_bias_adds_nothing(table, rng):
    a, weight = integers(rng, -9, 9, 9, 33), integers(rng, -9, 9, 50, 33)
    np.testing.assert_array_equal(table.gemm(a, weight), a @ weight.T)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e15], ids=["underflow", "tiny", "huge"])
def test_gemm_is_within_its_bound_at_extreme_magnitudes(table, rng, scale):
    a, weight = normal(rng, 9, 65, scale=scale), normal(rng, 50, 65, scale=scale)
    assert_within(table.gemm(a, weight), oracle.linear(a, weight), bound_of(a, weight))


def test_gemm_keeps_denormal_numbers(table):
    tiny = np.full((1, 1), 1e-40, np.float32)
    np.testing.assert_array_equal(table.gemm(tiny, np.ones((1, 1), np.float32)), tiny)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gemm_accepts_any_memory_layout(table, rng, layout):
    a, weight, bias = normal(rng, 11, 37), normal(rng, 53, 37), normal(rng, 53)
    y = table.gemm(layout(a), layout(weight), layout(bias))
    assert_same_bits(y, table.gemm(a, weight, bias))


def test_gemm_does_not_change_its_operands(table, rng):
    operands = a, weight, bias, residual = [
        normal(rng, *s) for s in [(7, 20), (20, 20), (20,), (7, 20)]
    ]
    before = [x.copy() for x in operands]
    table.gemm(a, weight, bias, residual=residual, norm_weight=bias)
    for x, old in zip(operands, before, strict=True):
        assert_same_bits(x, old)


# Properties that batch invariance depends on


def test_gemm_row_does_not_depend_on_other_rows(table, rng):
    mr, nr = table.gemm_tile
    a, weight, bias = normal(rng, 3 * mr + 1, 384), normal(rng, nr + 5, 384), normal(rng, nr + 5)
    whole = table.gemm(a, weight, bias)
    for m in range(1, len(a)):
        assert_same_bits(table.gemm(a[:m], weight, bias), whole[:m])
        assert_same_bits(table.gemm(a[m:], weight, bias), whole[m:])


def test_gemm_column_does_not_depend_on_other_columns(table, rng):
    mr, nr = table.gemm_tile
    a, weight, bias = normal(rng, mr, 384), normal(rng, 2 * nr + 1, 384), normal(rng, 2 * nr + 1)
    whole = table.gemm(a, weight, bias)
    for n in sizes_around(table.lanes, nr, 2 * nr)[1:]:
        assert_same_bits(table.gemm(a, weight[:n], bias[:n]), whole[:, :n])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_gemm_keeps_a_bad_value_in_its_row(table, rng, poison):
    mr, _ = table.gemm_tile
    a, weight = normal(rng, 2 * mr + 1, 40), normal(rng, 60, 40)
    clean = table.gemm(a, weight)
    for row in range(len(a)):
        bad = a.copy()
        bad[row, 7] = poison
        y = table.gemm(bad, weight)
        assert not np.isfinite(y[row]).any()
        assert_same_bits(np.delete(y, row, 0), np.delete(clean, row, 0))


# Epilogues: fused or not, the same bits


@pytest.mark.parametrize("activation", _core.activations())
def test_gemm_activation_has_the_bits_of_the_separate_step(table, rng, activation):
    mr, nr = table.gemm_tile
    for m, n in [(1, 1), (mr + 1, nr + 1), (2 * mr, 2 * nr - 1)]:
        a, weight, bias = normal(rng, m, 33), normal(rng, n, 33), normal(rng, n)
        fused = table.gemm(a, weight, bias, activation=activation)
        separate = table.activation(activation, table.gemm(a, weight, bias).ravel())
        assert_same_bits(fused, separate.reshape(m, n))


def test_gemm_residual_has_the_bits_of_the_separate_step(table, rng):
    mr, nr = table.gemm_tile
    for m, n in [(1, 1), (mr + 1, nr + 1), (2 * mr, 2 * nr - 1)]:
        a, weight, bias = normal(rng, m, 33), normal(rng, n, 33), normal(rng, n)
        residual = normal(rng, m, n)
        fused = table.gemm(a, weight, bias, residual=residual)
        assert_same_bits(fused, table.gemm(a, weight, bias) + residual)


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
@pytest.mark.parametrize("norm_bias", [True, False], ids=["bias", "no bias"])
def test_gemm_residual_and_norm_have_the_bits_of_the_separate_steps(table, rng, eps, norm_bias):
    mr, nr = table.gemm_tile
    for m, n in [(1, 1), (mr + 1, nr + 1), (2 * mr, 2 * nr - 1)]:
        a, weight, bias = normal(rng, m, 33), normal(rng, n, 33), normal(rng, n)
        residual, scale = normal(rng, m, n), normal(rng, n)
        shift = normal(rng, n) if norm_bias else None
        fused = table.gemm(
            a, weight, bias, residual=residual, norm_weight=scale, norm_bias=shift, eps=eps
        )
        summed = table.gemm(a, weight, bias) + residual
        assert_same_bits(fused, table.layer_norm(summed, scale, shift, eps=eps))


# Bad input


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"a": np.zeros((3, 5), np.float32)}, "weight"),
        ({"a": np.zeros(4, np.float32)}, "a"),
        ({"weight": np.zeros((6, 5), np.float32)}, "weight"),
        ({"bias": np.zeros(5, np.float32)}, "bias"),
        ({"bias": np.zeros((6, 1), np.float32)}, "bias"),
        ({"residual": np.zeros((3, 5), np.float32)}, "residual"),
        ({"norm_weight": np.zeros(5, np.float32)}, "norm_weight"),
        ({"activation": "softplus"}, "softplus"),
    ],
)
def test_gemm_names_the_argument_that_does_not_fit(change, name):
    table = _core.KernelTable(_core.active_isa())
    arguments = {"a": np.zeros((3, 4), np.float32), "weight": np.zeros((6, 4), np.float32)}
    with pytest.raises(ValueError, match=name):
        table.gemm(**{**arguments, **change})


def test_gemm_refuses_float64():
    table = _core.KernelTable(_core.active_isa())
    with pytest.raises(TypeError, match="a must be float32, got float64"):
        table.gemm(np.zeros((3, 4)), np.zeros((6, 4), np.float32))

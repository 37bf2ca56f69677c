"""attention beside int8 layers: both products in s16, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import _core
from tests import oracle
from tests.support import LAYOUTS, assert_same_bits, assert_within, normal, random_qkv, sizes_around

STEPS = 2047
ONE = 8192


def bound(q, k, v, scale):
    """Half a step of each number, and of each exponential; a score's error is a relative error of
    its exponential and, through the sum, of every weight of the row."""
    head_dim, keys = q.shape[1], k.shape[0]
    step_q, step_k, step_v = (max(np.abs(x).max() / STEPS, 2.0**-126) for x in (q, k, v))
    rounding = 0.5 * (step_q * np.abs(k).sum(axis=1).max() + step_k * np.abs(q).sum(axis=1))
    in_exponent = scale * (rounding + 0.25 * head_dim * step_q * step_k) * 1.001
    weights = oracle.softmax(oracle.linear(q, k) * scale)
    # A weight of 1 / sum at most: the largest exponential is 1, of which 0.5 + 0.03 steps are lost.
    lost = 0.53 * keys / ONE * weights.max(axis=1)
    relative = 2 * np.expm1(in_exponent)
    largest = np.abs(v).max()
    return relative[:, None] * (weights @ np.abs(v)) + 2.1 * lost[:, None] * largest + 0.51 * step_v


def check(table, q, k, v, scale):
    out = table.attention_s16(q, k, v, softmax_scale=scale)
    assert out.shape == (len(q), v.shape[1])
    assert_within(out, oracle.attention(q, k, v, scale), bound(q, k, v, scale))


def test_is_within_its_bound_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for queries in sizes_around(mr, 2 * mr, 4 * mr)[1:]:
        for keys in sizes_around(table.lanes, nr, 2 * nr)[1:]:
            check(table, *random_qkv(rng, queries, keys, 12), 0.3)


@pytest.mark.parametrize("head_dim", [1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 48, 64, 65, 128, 255, 256])
def test_is_within_its_bound_for_any_head_dim(table, rng, head_dim):
    check(table, *random_qkv(rng, 13, 29, head_dim), head_dim**-0.5)


@pytest.mark.parametrize("keys", [127, 128, 129, 255, 257, 1025, 2500])
def test_is_within_its_bound_around_the_keys_of_one_sum(table, rng, keys):
    check(table, *random_qkv(rng, 9, keys, 32), 32**-0.5)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_is_within_its_bound_for_any_shape(isa, queries, keys, head_dim, seed):
    qkv = random_qkv(np.random.default_rng(seed), queries, keys, head_dim)
    check(_core.KernelTable(isa), *qkv, head_dim**-0.5)


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e10])
def test_is_within_its_bound_for_any_magnitude_of_v(table, rng, size):
    q, k, v = random_qkv(rng, 9, 30, 16)
    check(table, q, k, (v * size).astype(np.float32), 0.25)


@pytest.mark.parametrize("head_dim", [1, 2, 31, 32, 200, 256])
def test_the_largest_sums_of_scores_do_not_overflow(table, head_dim):
    q = np.full((3, head_dim), STEPS, np.float32)
    k = np.concatenate([q[:1], -q[:1], q[:1]])
    v = np.eye(3, dtype=np.float32)
    # Scores of 2047^2 head_dim and minus that: two equal keys share what there is.
    out = table.attention_s16(q, k, v, softmax_scale=1e-3)
    np.testing.assert_allclose(out, [[0.5, 0, 0.5]] * 3, atol=1e-3)


@pytest.mark.parametrize("keys", [1, 64, 127, 128, 129, 500])
def test_the_largest_sums_of_values_do_not_overflow(table, keys):
    q, k = np.zeros((2, 8), np.float32), np.zeros((keys, 8), np.float32)
    v = np.full((keys, 5), -3.0, np.float32)
    np.testing.assert_allclose(table.attention_s16(q, k, v, softmax_scale=1.0), -3.0, rtol=1e-6)


def test_zeros_give_zeros(table):
    zeros = np.zeros((7, 12), np.float32)
    assert_same_bits(table.attention_s16(zeros, zeros, zeros, softmax_scale=1.0), zeros)


def test_of_no_query_is_empty(table, rng):
    q, k, v = random_qkv(rng, 0, 5, 8)
    assert table.attention_s16(q, k, v, softmax_scale=1.0).shape == (0, 8)


def test_without_keys_is_zero(table, rng):
    q, k, v = random_qkv(rng, 3, 0, 8)
    np.testing.assert_array_equal(table.attention_s16(q, k, v, softmax_scale=1.0), np.zeros((3, 8)))


def test_scores_far_apart_pick_one_value(table, rng):
    q, k, v = np.eye(8, dtype=np.float32) * 1e4, np.eye(8, dtype=np.float32), normal(rng, 8, 8)
    out = table.attention_s16(q, k, v, softmax_scale=1.0)
    np.testing.assert_allclose(out, v, atol=0.51 * np.abs(v).max() / STEPS)


def test_a_row_does_not_depend_on_its_place(table, rng):
    mr, _ = table.gemm_tile
    q, k, v = random_qkv(rng, 4 * mr + 3, 77, 32)
    whole = table.attention_s16(q, k, v, softmax_scale=0.2)
    backwards = table.attention_s16(q[::-1], k, v, softmax_scale=0.2)
    assert_same_bits(backwards[::-1], whole)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_is_left_to_float32(table, rng, poison, where):
    qkv = random_qkv(rng, 17, 40, 12)
    qkv[where][5, 3] = poison
    out = table.attention_s16(*qkv, softmax_scale=0.2)
    assert_same_bits(out, table.attention(*qkv, softmax_scale=0.2))


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_scores_beyond_float32_are_left_to_float32(table, rng, size):
    q, k, v = random_qkv(rng, 5, 9, 12)
    q, k = (np.clip(x, -1, 1) * np.float32(size) for x in (q, k))
    out = table.attention_s16(q, k, v, softmax_scale=1.0)
    assert_same_bits(out, table.attention(q, k, v, softmax_scale=1.0))


@pytest.mark.parametrize("head_dim", [257, 400])
def test_a_wide_head_is_left_to_float32(table, rng, head_dim):
    qkv = random_qkv(rng, 5, 9, head_dim)
    out = table.attention_s16(*qkv, softmax_scale=0.05)
    assert_same_bits(out, table.attention(*qkv, softmax_scale=0.05))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_takes_any_memory_layout(table, rng, layout):
    q, k, v = random_qkv(rng, 11, 37, 20)
    out = table.attention_s16(layout(q), layout(k), layout(v), softmax_scale=0.2)
    assert_same_bits(out, table.attention_s16(q, k, v, softmax_scale=0.2))

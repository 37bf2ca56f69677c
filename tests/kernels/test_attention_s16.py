"""attention for int8 layers, with both products in s16, at every level."""

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
    normal,
    random_qkv,
    sizes_around,
)

STEPS = 2047
ONE = 8192


def spread(bias, queries, keys):
    """bias[j - i + queries - 1] at (i, j)."""
    return bias[np.arange(keys) - np.arange(queries)[:, None] + queries - 1].astype(np.float64)


def weights_bound(q, k, scale, bias=0.0):
    """Exact weights and the bounds of their errors, without the error of half a step of an exponential: a
    relative error per row, and the part of 1 that a row loses by that rounding.

    Each number is off by at most half a step. The error of a score is a relative error of its exponential
    and, through the sum, of all weights of the row. With a bias, scores have eight more rounding errors of
    float32.
    """
    head_dim, keys = q.shape[1], k.shape[0]
    step_q, step_k = (max(np.abs(x).max() / STEPS, TINY) for x in (q, k))
    rounding = 0.5 * (step_q * np.abs(k).sum(axis=1).max() + step_k * np.abs(q).sum(axis=1))
    in_exponent = scale * (rounding + 0.25 * head_dim * step_q * step_k) * 1.001
    scores = oracle.linear(q, k) * scale
    if np.any(bias):
        largest_bias = np.abs(np.where(np.isneginf(bias), 0.0, bias)).max(axis=1)
        in_exponent += gamma(8) * (np.abs(scores).max(axis=1) + largest_bias)
    weights = oracle.softmax(scores + bias)
    # The error of a weight is at most 1 / sum: the largest exponential is 1, and the rounding error is 0.5 +
    # 0.03 steps.
    lost = 0.53 * keys / ONE * weights.max(axis=1)
    return weights, 2 * np.expm1(in_exponent), lost


def bound(q, k, v, scale, bias=0.0):
    weights, relative, lost = weights_bound(q, k, scale, bias)
    largest = np.abs(v).max()
    step_v = max(largest / STEPS, TINY)
    return relative[:, None] * (weights @ np.abs(v)) + 2.1 * lost[:, None] * largest + 0.51 * step_v


def check(table, q, k, v, scale):
    out = table.attention_s16(q, k, v, softmax_scale=scale)
    assert out.shape == (len(q), v.shape[1])
    assert_within(out, oracle.attention(q, k, v, scale), bound(q, k, v, scale))


def check_bias_and_weights(table, q, k, v, scale, bias):
    weights = np.full((len(q), len(k)), np.nan, np.float32)
    out = table.attention_s16(q, k, v, softmax_scale=scale, relative_bias=bias, weights=weights)
    added = spread(bias, len(q), len(k))
    assert_within(out, oracle.attention(q, k, v, scale, added), bound(q, k, v, scale, added))
    exact, relative, lost = weights_bound(q, k, scale, added)
    own = 2.1 * (lost / len(k))[:, None]  # half a step of this exponential only
    assert_within(weights, exact, relative[:, None] * exact + 2.1 * lost[:, None] * exact + own)


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
    # Scores of +-2047^2 head_dim: two equal keys have the same weight.
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


def test_very_different_scores_select_one_value(table, rng):
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
def test_numbers_that_are_not_finite_are_computed_in_float32(table, rng, poison, where):
    qkv = random_qkv(rng, 17, 40, 12)
    qkv[where][5, 3] = poison
    out = table.attention_s16(*qkv, softmax_scale=0.2)
    assert_same_bits(out, table.attention(*qkv, softmax_scale=0.2))


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_scores_out_of_range_are_computed_in_float32(table, rng, size):
    q, k, v = random_qkv(rng, 5, 9, 12)
    q, k = (np.clip(x, -1, 1) * np.float32(size) for x in (q, k))
    out = table.attention_s16(q, k, v, softmax_scale=1.0)
    assert_same_bits(out, table.attention(q, k, v, softmax_scale=1.0))


@pytest.mark.parametrize("head_dim", [257, 400])
def test_a_wide_head_is_computed_in_float32(table, rng, head_dim):
    qkv = random_qkv(rng, 5, 9, head_dim)
    out = table.attention_s16(*qkv, softmax_scale=0.05)
    assert_same_bits(out, table.attention(*qkv, softmax_scale=0.05))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accepts_any_memory_layout(table, rng, layout):
    q, k, v = random_qkv(rng, 11, 37, 20)
    out = table.attention_s16(layout(q), layout(k), layout(v), softmax_scale=0.2)
    assert_same_bits(out, table.attention_s16(q, k, v, softmax_scale=0.2))


def test_a_bias_by_distance_and_weights_are_within_their_bounds_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for queries in sizes_around(mr, 4 * mr)[1:]:
        for keys in sizes_around(table.lanes, 2 * table.lanes, nr, 2 * nr)[1:]:
            qkv = random_qkv(rng, queries, keys, 12)
            bias = normal(rng, queries + keys - 1, scale=2.0)
            check_bias_and_weights(table, *qkv, 0.3, bias)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_a_bias_by_distance_and_weights_are_within_their_bounds_for_any_shape(
    isa, queries, keys, head_dim, seed
):
    rng = np.random.default_rng(seed)
    qkv = random_qkv(rng, queries, keys, head_dim)
    bias = normal(rng, queries + keys - 1)
    check_bias_and_weights(_core.KernelTable(isa), *qkv, head_dim**-0.5, bias)


@pytest.mark.parametrize("keys", [127, 129, 1025])
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_a_bias_of_any_size_is_within_its_bound(table, rng, keys, size):
    qkv = random_qkv(rng, 9, keys, 32)
    check_bias_and_weights(table, *qkv, 32**-0.5, normal(rng, 8 + keys, scale=size))


@pytest.mark.parametrize("biased", [False, True])
def test_weights_change_no_bit_of_the_output(table, rng, biased):
    q, k, v = random_qkv(rng, 37, 53, 20)
    bias = normal(rng, 89) if biased else None
    weights = np.empty((37, 53), np.float32)
    out = table.attention_s16(q, k, v, softmax_scale=0.2, relative_bias=bias, weights=weights)
    assert_same_bits(out, table.attention_s16(q, k, v, softmax_scale=0.2, relative_bias=bias))


@pytest.mark.parametrize("keys", [1, 2, 17, 64, 129])
def test_unbiased_weights_are_those_applied_to_v(table, rng, keys):
    q, k, _ = random_qkv(rng, 21, keys, 20)
    weights = np.empty((21, keys), np.float32)
    out = table.attention_s16(
        q, k, np.eye(keys, dtype=np.float32), softmax_scale=0.2, weights=weights
    )
    # 1 is 2047 steps of 1 / 2047. Dividing and multiplying by steps adds a few rounding errors.
    np.testing.assert_allclose(weights, out, rtol=gamma(5))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("cut", [1, 7, 8, 24, 33, 63])
def test_queries_in_two_calls_have_the_bits_of_one(table, rng, biased, cut):
    queries, keys = 64, 75
    q, k, v = random_qkv(rng, queries, keys, 20)
    q[5] *= 3  # only one of the calls contains the largest query
    bias = normal(rng, queries + keys - 1) if biased else None
    step = {"softmax_scale": 0.2, "q_magnitude": table.largest_magnitude(q)}

    def attend(begin, end):
        part = None if bias is None else bias[queries - end : queries - begin + keys - 1]
        weights = np.empty((end - begin, keys), np.float32)
        out = table.attention_s16(q[begin:end], k, v, relative_bias=part, weights=weights, **step)
        return np.hstack([out, weights])

    assert_same_bits(np.vstack([attend(0, cut), attend(cut, queries)]), attend(0, queries))


def test_the_magnitude_of_all_queries_is_the_default(table, rng):
    q, k, v = random_qkv(rng, 19, 30, 16)
    magnitude = table.largest_magnitude(q)
    given = table.attention_s16(q, k, v, softmax_scale=0.2, q_magnitude=magnitude)
    assert_same_bits(given, table.attention_s16(q, k, v, softmax_scale=0.2))


def test_a_larger_magnitude_makes_coarser_steps(table, rng):
    q, k, v = random_qkv(rng, 19, 30, 16)
    large = np.float32(2**6) * table.largest_magnitude(q)
    out = table.attention_s16(q, k, v, softmax_scale=0.2, q_magnitude=large)
    widened = np.vstack([q, np.full((1, 16), large, np.float32)])
    assert_same_bits(out, table.attention_s16(widened, k, v, softmax_scale=0.2)[:-1])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_with_a_magnitude_that_is_not_finite_all_is_computed_in_float32(table, rng, poison):
    q, k, v = random_qkv(rng, 19, 30, 16)
    out = table.attention_s16(q, k, v, softmax_scale=0.2, q_magnitude=poison)
    assert_same_bits(out, table.attention(q, k, v, softmax_scale=0.2))


def test_the_largest_magnitude_is_exact_for_any_shape(table, rng):
    for cols in sizes_around(table.lanes, 2 * table.lanes, 3 * table.lanes):
        for rows in (0, 1, 5):
            x = normal(rng, rows, cols)
            assert table.largest_magnitude(x) == np.abs(x).max(initial=0.0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_the_largest_magnitude_is_not_finite_where_a_number_is_not(table, rng, poison):
    for column in range(2 * table.lanes + 3):
        x = normal(rng, 3, 2 * table.lanes + 3)
        x[1, column] = poison
        assert not np.isfinite(table.largest_magnitude(x))


def test_a_bias_of_minus_infinity_masks(table, rng):
    queries, keys = 20, 33
    bias = normal(rng, queries + keys - 1)
    bias[30:] = -np.inf  # row i sees keys below i + 11
    check_bias_and_weights(table, *random_qkv(rng, queries, keys, 16), 0.2, bias)


def assert_numbers_as_in_float32(table, q, k, v, scale, bias):
    """NaN is in the same places, and rows without a key have the same bits."""
    weights, expected_weights = np.empty((2, len(q), len(k)), np.float32)
    options = {"softmax_scale": scale, "relative_bias": bias}
    out = table.attention_s16(q, k, v, weights=weights, **options)
    expected = table.attention(q, k, v, weights=expected_weights, **options)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    np.testing.assert_array_equal(np.isnan(weights), np.isnan(expected_weights))
    empty = (expected_weights == 0).all(axis=1)
    assert_same_bits(out[empty], expected[empty])
    assert_same_bits(weights[empty], expected_weights[empty])
    return np.isnan(expected).any(axis=1).sum(), empty.sum()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_nan_bias_affects_its_own_rows_only(table, rng, poison):
    bias = normal(rng, 48)
    bias[20] = poison  # at (i, i - 19)
    spoilt = assert_numbers_as_in_float32(table, *random_qkv(rng, 40, 9, 16), 0.2, bias)
    assert spoilt == (9, 0)


def test_a_row_whose_biases_are_all_minus_infinity_has_no_key(table, rng):
    bias = normal(rng, 48)
    bias[:20] = -np.inf
    bias[3] = np.nan  # a row with a NaN among them still has keys
    spoilt = assert_numbers_as_in_float32(table, *random_qkv(rng, 40, 9, 16), 0.2, bias)
    assert spoilt == (4, 8)


def test_a_biased_score_out_of_range_affects_its_own_row_only(table, rng):
    q, k, v = random_qkv(rng, 40, 9, 16)
    q[30] = k[0] = 40.0
    bias = np.full(48, 3.4e38, np.float32)
    assert assert_numbers_as_in_float32(table, q, k, v, 4e32, bias) == (1, 0)

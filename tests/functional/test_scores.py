"""The scores of simdformer.functional's attention at every level, and their common properties."""

from __future__ import annotations

import numpy as np
import pytest

import simdformer.functional as F
from tests.oracle import scores as oracle
from tests.support import assert_same_bits, assert_within, normal, ulp_error
from tests.support.attention_cases import SCORES, check, oracle_scores, qkv, score_arguments

pytestmark = pytest.mark.usefixtures("active_isa")


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float", "window", "relative"])
def test_every_score_under_every_mask(rng, score, mask):
    q, k, v = qkv(rng, 21, 34)
    arguments = score_arguments(rng, score)
    scores = oracle_scores(score, q, k, **arguments)
    keep = None
    if mask == "causal":
        keep, arguments["is_causal"] = oracle.causal(21, 34), True
    elif mask == "bool":
        keep = arguments["attn_mask"] = rng.random((2, 1, 21, 34)) < 0.7
    elif mask == "float":
        arguments["attn_mask"] = normal(rng, 3, 1, 34)
        scores = scores + arguments["attn_mask"]
    elif mask == "window":
        keep, arguments["window_size"] = oracle.window(21, 34, 3, 5), (3, 5)
    elif mask == "relative":
        arguments["relative_bias"] = normal(rng, 3, 54)
        scores = scores + oracle.relative_matrix(arguments["relative_bias"], 21, 34)
    out, weights = F.attention(q, k, v, score=score, return_weights=True, **arguments)
    expected, expected_weights = oracle.attend(scores, v, keep)
    check(out, expected, 1e-5)
    check(weights, expected_weights, 1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scale", [0.3, 4.0, "per head", 0.0, -0.5])
def test_every_score_takes_a_scale(rng, score, scale):
    q, k, v = qkv(rng)
    arguments = score_arguments(rng, score)
    scale = np.array([0.2, 0.0, 3.0], np.float32) if scale == "per head" else scale
    out = F.attention(q, k, v, score=score, scale=scale, **arguments)
    factor = np.asarray(scale, np.float64).reshape(-1, 1, 1)
    scores = factor * oracle_scores(score, q, k, scale=1.0, **arguments)
    check(out, oracle.attend(scores, v)[0], 1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_takes_a_softcap(rng, score):
    q, k, v = qkv(rng, scale=2.0)
    arguments = score_arguments(rng, score)
    out = F.attention(q, k, v, score=score, softcap=1.5, **arguments)
    scores = oracle.softcap(oracle_scores(score, q, k, **arguments), 1.5)
    check(out, oracle.attend(scores, v)[0], 1e-5)


def test_scores_are_returned_at_four_stages(rng):
    q, k, v = qkv(rng)
    mask = np.where(rng.random((9, 13)) < 0.3, -np.inf, 1.5).astype(np.float32)
    scores = oracle.scaled_dot(q, k)
    capped = oracle.softcap(scores, 0.7)
    biased = capped + mask.astype(np.float64)
    expected = {
        "scores": scores,
        "capped": capped,
        "biased": biased,
        "softmax": oracle.masked_softmax(biased),
    }
    for stage, value in expected.items():
        out, weights = F.scaled_dot_product_attention(
            q, k, v, mask, softcap=0.7, return_weights=stage
        )
        check(out, oracle.attend(biased, v)[0])
        np.testing.assert_allclose(weights, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["euclidean", "additive", "cosine"])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_scores_with_grouped_queries(rng, score, kv_heads):
    q, _, _ = qkv(rng, lead=(2, 6))
    _, k, v = qkv(rng, lead=(2, kv_heads))
    out = F.attention(q, k, v, score=score, enable_gqa=True)
    scores = oracle_scores(score, q, oracle.repeat_heads(k, 6))
    check(out, oracle.attend(scores, oracle.repeat_heads(v, 6))[0], 1e-5)


def test_bilinear_joins_queries_and_keys_of_different_size(rng):
    q, k, v = normal(rng, 3, 9, 5), normal(rng, 3, 13, 8), normal(rng, 3, 13, 4)
    weight = normal(rng, 5, 8)
    out = F.attention(q, k, v, score="bilinear", weight=weight)
    check(out, oracle.attend(oracle.bilinear(q, k, weight), v)[0], 1e-5)


def test_additive_without_projections_adds_query_and_key(rng):
    q, k, v = qkv(rng)
    weight, bias = normal(rng, 8), normal(rng, 8)
    for kwargs in [{}, {"weight": weight}, {"bias": bias}]:
        out = F.attention(q, k, v, score="additive", **kwargs)
        check(out, oracle.attend(oracle.additive(q, k, **kwargs), v)[0], 1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e3, 1e18])
def test_additive_of_tiny_and_huge_magnitudes(rng, scale):
    q, k, v = qkv(rng, scale=scale)
    _, weights = F.attention(q, k, v, score="additive", return_weights=True)
    check(weights, oracle.masked_softmax(oracle.additive(q, k)), 1e-5)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_each_tanh_of_the_additive_score_is_within_2_ulp_of_one(rng, units):
    # Only one unit has a nonzero weight. ulp: the spacing of float32 at 1, the largest value of tanh.
    q, k = normal(rng, 300, units, scale=3), normal(rng, 200, units, scale=3)
    q[0], k[0] = 50, -50.25
    weight = np.zeros(units, np.float32)
    weight[-1] = 1
    _, scores = F.attention(q, k, k, score="additive", weight=weight, return_weights="scores")
    exact = oracle.additive(q[:, -1:], k[:, -1:])
    assert_within(scores, exact, 2 * 2.0**-23)


def test_exact_tanh_is_within_2_ulp_of_itself(rng):
    q, k = normal(rng, 300, 1) * np.float32(1e-3), np.zeros((7, 1), np.float32)
    for scale in (1, 1e3, 1e-20):
        x = (q * np.float32(scale)).astype(np.float32)
        _, scores = F.attention(x, k, k, score="additive", exact=True, return_weights="scores")
        exact = np.repeat(np.tanh(x.astype(np.float64)), 7, axis=1)
        assert ulp_error(scores, exact).max() <= 2


@pytest.mark.parametrize("far", ["all", "a query", "a key"])
def test_additive_of_opposite_huge_vectors_sees_their_difference(rng, far):
    q, k, v = qkv(rng)
    q[:, :, 2 if far == "a query" else slice(None)] += 0 if far == "a key" else 60
    k[:, :, 2 if far == "a key" else slice(None)] -= 0 if far == "a query" else 60
    scores = oracle.additive(q, k)
    check(F.attention(q, k, v, score="additive"), oracle.attend(scores, v)[0], 1e-5)


def test_additive_score_of_a_pair_does_not_depend_on_its_neighbours(rng):
    q, k, v = qkv(rng, 9, 40)
    far = k.copy()
    far[..., 5, 3] = 1e3
    _, near_scores = F.attention(q, k, v, score="additive", return_weights="scores")
    _, far_scores = F.attention(q, far, v, score="additive", return_weights="scores")
    assert_same_bits(np.delete(far_scores, 5, -1), np.delete(near_scores, 5, -1))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e3, 1e9])
def test_cosine_of_tiny_and_huge_magnitudes(rng, scale):
    q, k, v = qkv(rng, scale=scale)
    _, weights = F.attention(q, k, v, score="cosine", return_weights=True)
    check(weights, oracle.masked_softmax(oracle.cosine(q, k)), 1e-5)


def test_cosine_of_a_zero_vector_is_zero(rng):
    q, k, v = qkv(rng)
    q[..., 2, :] = 0
    out, weights = F.attention(q, k, v, score="cosine", return_weights=True)
    check(weights[..., 2, :], np.full((2, 3, 13), 1 / 13))
    k[..., 5, :] = 0
    out = F.attention(q, k, v, score="cosine")
    check(out, oracle.attend(oracle.cosine(q, k), v)[0])


def test_exact_euclidean_keeps_distances_that_the_expanded_form_loses(rng):
    q = normal(rng, 1, 20, 16) * np.float32(0.02) + np.float32(2000)
    k = (q + normal(rng, 1, 20, 16) * np.float32(0.5)).astype(np.float32)
    v = normal(rng, 1, 20, 16)
    expected = oracle.attend(oracle.euclidean(q, k), v)[0]
    check(F.attention(q, k, v, score="euclidean", exact=True), expected, 1e-5)
    assert np.abs(F.attention(q, k, v, score="euclidean") - expected).max() > 0.1


# Identities


def test_euclidean_is_dot_with_a_key_bias(rng):
    q, k, v = qkv(rng)
    bias = -(k**2).sum(axis=-1)[..., None, :]
    dot = F.attention(q, k, v, score="dot", scale=2.0, attn_mask=bias)
    check(F.attention(q, k, v, score="euclidean", scale=1.0), dot)


def test_bilinear_with_the_product_of_projections_is_a_head(rng):
    x, v = normal(rng, 12, 16), normal(rng, 12, 4)
    w_q, w_k = normal(rng, 4, 16, scale=0.3), normal(rng, 4, 16, scale=0.3)
    head = F.attention(x @ w_q.T, x @ w_k.T, v, score="dot")
    check(F.attention(x, x, v, score="bilinear", weight=w_q.T @ w_k), head, 1e-5)


def test_cosine_is_dot_on_normalized_inputs(rng):
    q, k, v = qkv(rng)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k)]
    check(F.attention(q, k, v, score="cosine"), F.attention(*unit, v, score="dot"))


@pytest.mark.parametrize("score", SCORES)
def test_the_order_of_keys_has_no_effect(rng, score):
    q, k, v = qkv(rng)
    arguments = score_arguments(rng, score)
    order = rng.permutation(13)
    shuffled = F.attention(q, k[..., order, :], v[..., order, :], score=score, **arguments)
    check(shuffled, F.attention(q, k, v, score=score, **arguments), 1e-5)


def test_concatenated_queries_and_keys_are_an_additive_score(rng):
    """w2 . tanh(W1 [q; k]): the columns of W1 are those for the query and those for the key."""
    q, k, v = qkv(rng)
    w1, w2 = normal(rng, 11, 16, scale=0.3), normal(rng, 11)
    pairs = np.concatenate(
        np.broadcast_arrays(q[..., :, None, :], k[..., None, :, :]), axis=-1
    ).astype(np.float64)
    scores = np.tanh(pairs @ w1.astype(np.float64).T) @ w2
    out = F.attention(
        q, k, v, score="additive", query_weight=w1[:, :8], key_weight=w1[:, 8:], weight=w2
    )
    check(out, oracle.attend(scores, v)[0], 1e-5)


# Edges


@pytest.mark.parametrize("score", SCORES)
def test_fully_masked_row_is_zero_whatever_the_score(rng, score):
    q, k, v = qkv(rng)
    arguments = score_arguments(rng, score)
    mask = np.ones((9, 13), bool)
    mask[4] = False
    out, weights = F.attention(
        q, k, v, score=score, attn_mask=mask, return_weights=True, **arguments
    )
    assert not out[..., 4, :].any()
    assert not weights[..., 4, :].any()
    expected = oracle.attend(oracle_scores(score, q, k, **arguments), v, mask)[0]
    check(out, expected, 1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_no_keys_give_zeros_whatever_the_score(rng, score):
    q, k, v = qkv(rng, 9, 0)
    out = F.attention(q, k, v, score=score, **score_arguments(rng, score))
    assert_same_bits(out, np.zeros((2, 3, 9, 8), np.float32))


@pytest.mark.parametrize("score", SCORES)
def test_the_only_key_has_all_the_weight_whatever_the_score(rng, score):
    q, k, v = qkv(rng, 5, 1)
    out, weights = F.attention(
        q, k, v, score=score, return_weights=True, **score_arguments(rng, score)
    )
    assert_same_bits(weights, np.ones((2, 3, 5, 1), np.float32))
    assert_same_bits(out, np.repeat(v, 5, axis=-2))


@pytest.mark.parametrize("score", SCORES)
def test_a_single_query_is_a_row_of_many(rng, score):
    q, k, v = qkv(rng, 9, 40)
    arguments = score_arguments(rng, score)
    whole = F.attention(q, k, v, score=score, **arguments)
    alone = F.attention(q[..., 4:5, :], k, v, score=score, **arguments)
    assert_same_bits(alone, whole[..., 4:5, :].copy())


@pytest.mark.parametrize("score", SCORES)
def test_tiny_magnitudes_weigh_all_keys_alike(rng, score):
    q, k, v = qkv(rng, scale=1e-30)
    if score in ("cosine", "additive"):  # of directions; of projections and a bias
        k[...] = k[..., :1, :]
    weights = F.attention(q, k, v, score=score, return_weights=True, **score_arguments(rng, score))[
        1
    ]
    check(weights, np.full((2, 3, 9, 13), 1 / 13))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scale", [1e4, 1e9, 1e17])
def test_huge_magnitudes_give_the_largest_score_all_the_weight(rng, score, scale):
    """Only if it is the largest by more than rounding. No weight overflows or vanishes elsewhere."""
    q, k, v = qkv(rng, 30, 13, scale=scale)
    arguments = score_arguments(rng, score)
    out, weights = F.attention(q, k, v, score=score, return_weights=True, **arguments)
    assert np.isfinite(out).all()
    check(weights.sum(axis=-1), np.ones((2, 3, 30)))
    scores = oracle_scores(score, q, k, **arguments)
    exact = oracle.masked_softmax(scores)
    largest = np.sort(scores, axis=-1)
    clear = largest[..., -1] - largest[..., -2] > 1e-4 * np.abs(scores).max()
    assert clear.mean() > 0.5
    check(weights[clear], exact[clear], 1e-3)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dim", [1, 7, 33])
def test_odd_sizes_of_everything(rng, score, dim):
    q, k, v = qkv(rng, 11, 37, dim)
    arguments = score_arguments(rng, score, dim)
    expected = oracle.attend(oracle_scores(score, q, k, **arguments), v)[0]
    check(F.attention(q, k, v, score=score, **arguments), expected, 1e-5)


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float", "softcap"])
@pytest.mark.parametrize("size", [1e18, 5e18])
def test_products_beyond_float32_are_finite_where_scaled_ones_are(rng, mask, size):
    """q.k is up to 1e39, q.k / sqrt(E) up to 1e38. The scale is applied first if the product overflows."""
    q, k = normal(rng, 2, 3, 40, 64, scale=size)
    v = normal(rng, 3, 40, 64)
    scores, keep, arguments = oracle.scaled_dot(q, k), None, {}
    if mask == "causal":
        keep, arguments["is_causal"] = oracle.causal(40, 40), True
    elif mask == "bool":
        keep = arguments["attn_mask"] = rng.random((40, 40)) < 0.5
        keep[7] = False
    elif mask == "float":
        keep = rng.random((40, 40)) < 0.5
        arguments["attn_mask"] = np.where(keep, np.float32(0), np.float32(-np.inf))
    elif mask == "softcap":
        scores, arguments["softcap"] = oracle.softcap(scores, 3.0), 3.0
    out, weights = F.attention(q, k, v, return_weights=True, **arguments)
    expected, expected_weights = oracle.attend(scores, v, keep)
    check(weights, expected_weights, 1e-5)
    check(out, expected, 1e-5)


def test_negative_products_beyond_float32_leave_a_masked_row_alone(rng):
    q = -np.full((1, 1, 4, 64), 2e18, np.float32)
    k, v = np.full((1, 1, 5, 64), 2e18, np.float32), normal(rng, 1, 1, 5, 64)
    mask = np.ones((4, 5), bool)
    mask[2] = False
    out = F.attention(q, k, v, attn_mask=mask)
    assert not out[0, 0, 2].any()
    np.testing.assert_allclose(out[0, 0, [0, 1, 3]], np.tile(v.mean(axis=2)[0], (3, 1)), rtol=1e-5)

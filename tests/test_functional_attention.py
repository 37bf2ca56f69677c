"""simdformer.functional's attention at every level: masks, biases, windows, heads, the five scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import oracle_attention as oracle
import simdformer.functional as F
from support import assert_same_bits, assert_within, normal, ulp_error

pytestmark = pytest.mark.usefixtures("active_isa")

SHAPES = [(1, 1), (1, 33), (7, 5), (33, 70), (70, 33), (130, 257)]
SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")


def qkv(rng, queries=9, keys=13, dim=8, lead=(2, 3), scale=1.0):
    return (
        normal(rng, *lead, queries, dim, scale=scale),
        normal(rng, *lead, keys, dim, scale=scale),
        normal(rng, *lead, keys, dim),
    )


def check(actual, expected, tolerance=3e-6):
    """Within tolerance of the largest expected element: a weighted mean of values."""
    assert_within(actual, expected, tolerance * (1 + np.abs(expected).max(initial=0)))


def score_arguments(rng, score, dim=8, heads=3):
    if score == "bilinear":
        return {"weight": normal(rng, heads, dim, dim, scale=2 / dim)}
    if score == "additive":
        return {
            "weight": normal(rng, heads, 11),
            "query_weight": normal(rng, heads, 11, dim, scale=dim**-0.5),
            "key_weight": normal(rng, heads, 11, dim, scale=dim**-0.5),
            "bias": normal(rng, 11),
        }
    return {}


def oracle_scores(score, q, k, **kwargs):
    return getattr(oracle, score)(q, k, **kwargs)


# Masks


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_output_and_weights_without_a_mask(rng, queries, keys):
    q, k, v = qkv(rng, queries, keys)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_causal_counts_from_the_first_query_and_key(rng, queries, keys):
    q, k, v = qkv(rng, queries, keys)
    keep = oracle.causal(queries, keys)
    out, weights = F.scaled_dot_product_attention(q, k, v, is_causal=True, return_weights=True)
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, keep)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
@pytest.mark.parametrize("sides", [(0, 0), (2, 1), (3, -1), (-1, 4), (40, 2), (0, 300)])
@pytest.mark.parametrize("lower_right", [False, True])
def test_window_lets_a_query_see_its_neighbours(rng, queries, keys, sides, lower_right):
    q, k, v = qkv(rng, queries, keys)
    keep = oracle.window(queries, keys, *sides, lower_right=lower_right)
    out, weights = F.attention(
        q,
        k,
        v,
        window_size=sides,
        alignment="lower_right" if lower_right else "upper_left",
        return_weights=True,
    )
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, keep)
    check(out, expected)
    check(weights, expected_weights)


MASK_SHAPES = [
    (9, 13),
    (13,),
    (1, 13),
    (9, 1),
    (3, 9, 13),
    (2, 1, 1, 13),
    (2, 3, 9, 13),
    (2, 1, 9, 1),
]


@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_bool_mask_of_any_rank(rng, shape):
    q, k, v = qkv(rng)
    mask = rng.random(shape) < 0.6
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, mask)
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_float_mask_of_any_rank_is_added(rng, shape):
    q, k, v = qkv(rng)
    mask = np.where(rng.random(shape) < 0.3, -np.inf, normal(rng, *shape)).astype(np.float32)
    scores = oracle.scaled_dot(q, k) + mask.astype(np.float64)
    expected, expected_weights = oracle.attend(scores, v)
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    check(out, expected)
    check(weights, expected_weights)


def test_mask_of_all_true_changes_no_bit(rng):
    q, k, v = qkv(rng, 40, 70)
    plain = F.scaled_dot_product_attention(q, k, v)
    for shape in [(70,), (40, 70)]:
        assert_same_bits(F.scaled_dot_product_attention(q, k, v, np.ones(shape, bool)), plain)


def test_weights_out_change_no_bit_of_the_output(rng):
    q, k, v = qkv(rng, 40, 70)
    out, _ = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert_same_bits(out, F.scaled_dot_product_attention(q, k, v))


def test_mask_that_is_causal_equals_is_causal(rng):
    q, k, v = qkv(rng, 40, 40)
    masked = F.scaled_dot_product_attention(q, k, v, oracle.causal(40, 40))
    check(F.scaled_dot_product_attention(q, k, v, is_causal=True), masked, 1e-6)


# Rows and keys that are masked


@pytest.mark.parametrize("kind", ["bool", "float", "key"])
def test_fully_masked_row_is_zero_in_output_and_weights(rng, kind):
    q, k, v = qkv(rng)
    mask = np.ones((9, 13), bool)
    mask[4] = False
    rows = [4]
    if kind == "float":
        mask = np.where(mask, 0, -np.inf).astype(np.float32)
    if kind == "key":
        mask, rows = np.zeros((1, 13), bool), list(range(9))
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    assert not out[..., rows, :].any()
    assert not weights[..., rows, :].any()
    check(
        out,
        oracle.attend(
            oracle.scaled_dot(q, k),
            v,
            np.isfinite(np.where(mask, 0, -np.inf)) if kind != "float" else np.isfinite(mask),
        )[0],
    )


def test_fully_masked_row_is_nan_if_asked(rng):
    q, k, v = qkv(rng)
    mask = np.ones((9, 13), bool)
    mask[4] = False
    out, weights = F.scaled_dot_product_attention(
        q, k, v, mask, masked_row="nan", return_weights=True
    )
    for result in (out, weights):
        assert np.isnan(result[..., 4, :]).all()
        assert not np.isnan(np.delete(result, 4, axis=-2)).any()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["bool", "float", "causal"])
def test_poison_at_a_masked_key_has_no_effect(rng, score, poison, kind):
    q, k, v = qkv(rng, 9, 13)
    arguments = score_arguments(rng, score)
    keep = np.arange(13) < 9
    if kind == "bool":
        arguments["attn_mask"] = keep
    elif kind == "float":
        arguments["attn_mask"] = np.where(keep, 0.5, -np.inf).astype(np.float32)
    else:
        arguments["is_causal"] = True
    clean = F.attention(q, k, v, score=score, **arguments)
    k[..., 9:, :] = poison
    v[..., 9:, :] = poison
    assert_same_bits(F.attention(q, k, v, score=score, **arguments), clean)


def test_no_keys_give_zeros(rng):
    q, k, v = qkv(rng, 9, 0)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert_same_bits(out, np.zeros((2, 3, 9, 8), np.float32))
    assert weights.shape == (2, 3, 9, 0)


def test_no_queries_give_an_empty_output(rng):
    assert F.scaled_dot_product_attention(*qkv(rng, 0, 9)).shape == (2, 3, 0, 8)


@pytest.mark.parametrize("lead", [(0,), (0, 3), (2, 0)])
def test_no_sequences_or_no_heads_give_an_empty_output(rng, lead):
    q, k, v = qkv(rng, lead=lead)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert out.shape == (*lead, 9, 8)
    assert weights.shape == (*lead, 9, 13)


def test_one_query_and_one_key(rng):
    q, k, v = qkv(rng, 1, 1)
    assert_same_bits(F.scaled_dot_product_attention(q, k, v), v)


# Sizes and layouts


@pytest.mark.parametrize("dim", [1, 3, 5, 20, 80, 256])
@pytest.mark.parametrize("score", SCORES)
def test_any_head_dim(rng, dim, score):
    q, k, v = qkv(rng, 17, 35, dim)
    arguments = score_arguments(rng, score, dim)
    expected, _ = oracle.attend(oracle_scores(score, q, k, **arguments), v)
    check(F.attention(q, k, v, score=score, **arguments), expected, 1e-5)


def test_value_dim_differs_from_head_dim(rng):
    q, k, _ = qkv(rng)
    v = normal(rng, 2, 3, 13, 37)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (2, 2, 1, 3)])
def test_any_leading_dimensions(rng, lead):
    q, k, v = qkv(rng, lead=lead)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


def test_leading_dimensions_broadcast(rng):
    q, k, v = normal(rng, 2, 1, 9, 8), normal(rng, 3, 13, 8), normal(rng, 1, 1, 13, 8)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_queries_share_key_heads(rng, kv_heads):
    q, _, _ = qkv(rng, lead=(2, 6))
    _, k, v = qkv(rng, lead=(2, kv_heads))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    scores = oracle.scaled_dot(q, oracle.repeat_heads(k, 6))
    check(out, oracle.attend(scores, oracle.repeat_heads(v, 6))[0])


@pytest.mark.parametrize("score", SCORES)
def test_heads_inside_rows_are_read_in_place(rng, score):
    # (batch, rows, heads, dim), as a projection leaves them.
    q, k, v = qkv(rng, lead=(2, 3))
    arguments = score_arguments(rng, score)
    views = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v)]
    assert_same_bits(
        F.attention(*views, score=score, **arguments),
        F.attention(q, k, v, score=score, **arguments),
    )


def test_backward_and_column_major_views_are_copied(rng):
    q, k, v = qkv(rng)
    plain = F.scaled_dot_product_attention(q, k, v)
    views = [
        np.asfortranarray(q),
        k[..., ::-1, :].copy()[..., ::-1, :],
        v[..., ::-1].copy()[..., ::-1],
    ]
    assert_same_bits(F.scaled_dot_product_attention(*views), plain)


@pytest.mark.parametrize("layout", ["contiguous", "heads inside", "every other", "overlapping"])
def test_out_receives_the_result(rng, layout):
    q, k, v = qkv(rng)
    expected = F.scaled_dot_product_attention(q, k, v)
    out = {
        "contiguous": np.empty((2, 3, 9, 8), np.float32),
        "heads inside": np.empty((2, 9, 3, 8), np.float32).swapaxes(1, 2),
        "every other": np.empty((2, 3, 9, 16), np.float32)[..., ::2],
        "overlapping": q,
    }[layout]
    assert F.scaled_dot_product_attention(q, k, v, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_row_does_not_depend_on_its_company(rng):
    q, k, v = qkv(rng, 37, 60, lead=(3, 2))
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_same_bits(F.scaled_dot_product_attention(q[1], k[1], v[1], is_causal=True), whole[1])
    assert_same_bits(
        F.scaled_dot_product_attention(q[..., :20, :], k, v, is_causal=True), whole[..., :20, :]
    )


def test_few_heads_are_cut_by_queries_without_changing_a_bit(rng):
    # Large enough for several threads, with one head: rows are shared out.
    q, k, v = qkv(rng, 300, 311, 32, lead=(1, 1))
    bias = normal(rng, 1, 610)
    for kwargs in [{}, {"is_causal": True}, {"relative_bias": bias, "window_size": (70, 9)}]:
        whole, weights = F.attention(q, k, v, return_weights=True, **kwargs)
        twice = [np.concatenate([x, x], axis=1) for x in (q, k, v)]
        if "relative_bias" in kwargs:
            kwargs["relative_bias"] = np.repeat(bias, 2, axis=0)
        out, both = F.attention(*twice, return_weights=True, **kwargs)
        for head in range(2):
            assert_same_bits(out[:, head], whole[:, 0])
            assert_same_bits(both[:, head], weights[:, 0])


# Scores


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
    # One unit has a weight, the others none; ulp is float32's spacing at 1, above which no tanh is.
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


def test_cosine_is_dot_on_normalised_inputs(rng):
    q, k, v = qkv(rng)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k)]
    check(F.attention(q, k, v, score="cosine"), F.attention(*unit, v, score="dot"))


@pytest.mark.parametrize("score", SCORES)
def test_order_of_keys_does_not_matter(rng, score):
    q, k, v = qkv(rng)
    arguments = score_arguments(rng, score)
    order = rng.permutation(13)
    shuffled = F.attention(q, k[..., order, :], v[..., order, :], score=score, **arguments)
    check(shuffled, F.attention(q, k, v, score=score, **arguments), 1e-5)


# Errors


def z(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"query": z(3, 8, dtype=np.float64)}, TypeError, "query must be float32, got float64"),
        ({"key": [[1.0] * 8] * 5}, TypeError, "key must be float32"),
        ({"value": "text"}, TypeError, "value"),
        ({"query": z(8)}, ValueError, "query must have at least 2 dimensions"),
        ({"key": z(5, 7)}, ValueError, "7"),
        ({"value": z(4, 8)}, ValueError, "value has 4"),
        ({"query": z(2, 3, 8), "key": z(3, 5, 8)}, ValueError, "leading dimensions"),
        ({"attn_mask": z(3, 4)}, ValueError, "attn_mask of shape"),
        ({"attn_mask": z(2, 3, 5, dtype=bool)}, ValueError, "attn_mask of shape"),
        ({"attn_mask": z(3, 5, dtype=np.int64)}, TypeError, "attn_mask must be bool or float32"),
        ({"dropout_p": 0.1}, ValueError, "dropout_p"),
        ({"softcap": -1.0}, ValueError, "softcap must be positive"),
        ({"window_size": (-2, 0)}, ValueError, "window_size"),
        ({"masked_row": "one"}, ValueError, "masked_row"),
        ({"return_weights": "all"}, ValueError, "return_weights"),
        ({"scale": np.ones(2, np.float32)}, ValueError, "scale"),
        ({"out": z(3, 7)}, ValueError, "out must have shape"),
        ({"out": z(3, 8, dtype=np.float64)}, TypeError, "out must be float32"),
        ({"score": "angular"}, ValueError, "unknown score 'angular'; known: scaled_dot"),
        ({"score": "bilinear"}, ValueError, "needs weight"),
        ({"score": "bilinear", "weight": z(8, 7)}, ValueError, "weight must have shape"),
        ({"score": "cosine", "weight": z(8)}, ValueError, "takes no weight"),
        ({"score": "additive", "query_weight": z(4, 8)}, ValueError, "together"),
        ({"relative_bias": z(6)}, ValueError, r"relative_bias must have shape \(7,\)"),
        ({"alignment": "centre"}, ValueError, "alignment"),
    ],
)
def test_error_names_the_argument(kwargs, error, words):
    arguments = {"query": z(3, 8), "key": z(5, 8), "value": z(5, 8), **kwargs}
    with pytest.raises(error, match=words):
        F.attention(**arguments)


def test_causal_and_mask_exclude_each_other_as_in_torch(rng):
    with pytest.raises(ValueError, match="exclude each other"):
        F.scaled_dot_product_attention(*qkv(rng), np.ones((9, 13), bool), is_causal=True)


def test_read_only_out_is_refused(rng):
    out = z(2, 3, 9, 8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.scaled_dot_product_attention(*qkv(rng), out=out)


class Exporter:
    """A foreign array that speaks DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_arrays_are_taken(rng):
    q, k, v = qkv(rng)
    out = F.scaled_dot_product_attention(*map(Exporter, (q, k, v)))
    assert_same_bits(out, F.scaled_dot_product_attention(q, k, v))


# Packed sequences


LENGTHS = [(5, 7), (0, 3), (4, 0), (1, 1), (33, 20), (0, 0), (17, 17)]


def packed(rng, heads=4, kv_heads=2, dim=8):
    lengths_q, lengths_k = np.array(LENGTHS).T
    offsets = [np.concatenate([[0], np.cumsum(x)]).astype(np.int32) for x in (lengths_q, lengths_k)]
    q = normal(rng, lengths_q.sum(), heads, dim)
    k, v = (normal(rng, lengths_k.sum(), kv_heads, dim) for _ in range(2))
    return q, k, v, *offsets


@pytest.mark.parametrize(
    "kwargs", [{}, {"causal": True}, {"window_size": (3, 2)}, {"softcap": 0.5}]
)
@pytest.mark.parametrize("alibi", [False, True])
def test_varlen_is_attention_of_each_sequence(rng, kwargs, alibi):
    q, k, v, cu_q, cu_k = packed(rng)
    slopes = normal(rng, 4) ** 2 if alibi else None
    out, weights = F.varlen_attention(
        q, k, v, cu_q, cu_k, 33, 20, alibi_slopes=slopes, return_attn_probs=True, **kwargs
    )
    for (a, b), (c, d) in zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True):
        qs, ks, vs = (x.swapaxes(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        ks, vs = (oracle.repeat_heads(x, 4) for x in (ks, vs))
        scores = oracle.softcap(oracle.scaled_dot(qs, ks), kwargs.get("softcap"))
        i, j = np.arange(b - a)[:, None], np.arange(d - c)[None]
        if alibi:
            scores = scores - slopes[:, None, None] * abs(i + (d - c) - (b - a) - j)
        right = 0 if kwargs.get("causal") else kwargs.get("window_size", (-1, -1))[1]
        left = kwargs.get("window_size", (-1, -1))[0]
        keep = oracle.window(b - a, d - c, left, right, lower_right=True)
        expected, expected_weights = oracle.attend(scores, vs, keep)
        check(out[a:b].swapaxes(0, 1), expected)
        check(weights[:, a:b, : d - c], expected_weights)
        assert not weights[:, a:b, d - c :].any()


def test_varlen_equals_padded_bit_for_bit(rng):
    q, k, v, cu_q, cu_k = packed(rng, kv_heads=4)
    out = F.varlen_attention(q, k, v, cu_q, cu_k)
    dense = [np.full((len(LENGTHS), 4, 33, 8), np.nan, np.float32) for _ in range(3)]
    keep = np.zeros((len(LENGTHS), 1, 1, 33), bool)
    for b, (a, c) in enumerate(zip(cu_q[:-1], cu_k[:-1], strict=True)):
        n_q, n_k = LENGTHS[b]
        dense[0][b, :, :n_q] = q[a : a + n_q].swapaxes(0, 1)
        dense[1][b, :, :n_k] = k[c : c + n_k].swapaxes(0, 1)
        dense[2][b, :, :n_k] = v[c : c + n_k].swapaxes(0, 1)
        keep[b, ..., :n_k] = True
    whole = F.scaled_dot_product_attention(*dense, keep)
    for b, a in enumerate(cu_q[:-1]):
        n_q = LENGTHS[b][0]
        assert_same_bits(out[a : a + n_q].swapaxes(0, 1), whole[b, :, :n_q])


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        ([1, 5], ValueError),
        ([0, 3, 2, 5], ValueError),
        ([0, 4], ValueError),
        ([], TypeError),
        ([0.0, 5.0], TypeError),
    ],
)
def test_varlen_refuses_offsets_that_cannot_be(offsets, error):
    with pytest.raises(error, match="cu_seqlens_q"):
        F.varlen_attention(z(5, 2, 4), z(5, 2, 4), z(5, 2, 4), offsets, [0, 5])


def test_varlen_checks_the_longest_sequence():
    with pytest.raises(ValueError, match="max_seqlen is 4"):
        F.varlen_attention(z(5, 2, 4), z(5, 2, 4), z(5, 2, 4), [0, 5], [0, 5], 4, 5)

"""Packed sequences: simdformer.functional.varlen_attention at every level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import simdformer.functional as F
from tests.oracle import scores as oracle
from tests.support import assert_same_bits, normal
from tests.support.attention_cases import SCORES, check, z

pytestmark = pytest.mark.usefixtures("active_isa")

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
def test_varlen_refuses_invalid_offsets(offsets, error):
    with pytest.raises(error, match="cu_seqlens_q"):
        F.varlen_attention(z(5, 2, 4), z(5, 2, 4), z(5, 2, 4), offsets, [0, 5])


def test_varlen_checks_the_longest_sequence():
    with pytest.raises(ValueError, match="max_seqlen_q is 4"):
        F.varlen_attention(z(5, 2, 4), z(5, 2, 4), z(5, 2, 4), [0, 5], [0, 5], 4, 5)


def scoring(rng, score, dim=8):
    """Weights of a score for 4 heads of queries and 2 of keys."""
    if score == "bilinear":
        return {"weight": normal(rng, 4, dim, dim, scale=2 / dim)}
    if score == "additive":
        return {
            "weight": normal(rng, 4, 11),
            "query_weight": normal(rng, 4, 11, dim, scale=dim**-0.5),
            "key_weight": normal(rng, 2, 11, dim, scale=dim**-0.5),
            "bias": normal(rng, 11),
        }
    return {}


def each_sequence(q, k, v, cu_q, cu_k, **kwargs):
    """The results of `attention` for each sequence separately: outputs and weights."""
    for (a, b), (c, d) in zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k), strict=True):
        own = (x.swapaxes(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        out, weights = F.attention(*own, enable_gqa=True, return_weights=True, **kwargs)
        yield slice(a, b), d - c, out, weights


OPTIONS = [
    ({}, {}),
    ({"causal": True}, {"is_causal": True, "alignment": "lower_right"}),
    ({"window_size": (3, 2)}, {"window_size": (3, 2), "alignment": "lower_right"}),
    ({"softcap": 0.5}, {"softcap": 0.5}),
    ({"softmax_scale": 0.3}, {"scale": 0.3}),
]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("packed_options", "options"), OPTIONS, ids=str)
def test_every_score_has_the_bits_of_each_sequence_alone(rng, score, packed_options, options):
    q, k, v, cu_q, cu_k = packed(rng)
    weights = scoring(rng, score)
    out, probs = F.varlen_attention(
        q, k, v, cu_q, cu_k, score=score, return_attn_probs=True, **weights, **packed_options
    )
    bare = F.varlen_attention(q, k, v, cu_q, cu_k, score=score, **weights, **packed_options)
    assert_same_bits(bare, out)
    alone = each_sequence(q, k, v, cu_q, cu_k, score=score, **weights, **options)
    for rows, num_keys, expected, expected_weights in alone:
        assert_same_bits(out[rows].swapaxes(0, 1), expected)
        assert_same_bits(probs[:, rows, :num_keys], expected_weights)
        assert not probs[:, rows, num_keys:].any()


@pytest.mark.parametrize("score", ["euclidean", "additive"])
def test_exact_scores_have_the_bits_of_each_sequence_alone(rng, score):
    q, k, v, cu_q, cu_k = packed(rng)
    options = {"score": score, "exact": True, **scoring(rng, score)}
    out = F.varlen_attention(q, k, v, cu_q, cu_k, **options)
    for rows, _, expected, _ in each_sequence(q, k, v, cu_q, cu_k, **options):
        assert_same_bits(out[rows].swapaxes(0, 1), expected)


@pytest.mark.parametrize("score", SCORES)
def test_a_query_without_keys_gives_nan_if_asked(rng, score):
    q, k, v, cu_q, cu_k = packed(rng)
    out = F.varlen_attention(
        q, k, v, cu_q, cu_k, score=score, masked_row="nan", **scoring(rng, score)
    )
    nothing = np.zeros(len(q), bool)
    nothing[cu_q[2] : cu_q[3]] = True  # LENGTHS[2] has no keys
    np.testing.assert_array_equal(np.isnan(out).all(axis=(1, 2)), nothing)
    np.testing.assert_array_equal(np.isnan(out).any(axis=(1, 2)), nothing)


@pytest.mark.parametrize("score", SCORES)
def test_nan_in_one_sequence_does_not_reach_others(rng, score):
    q, k, v, cu_q, cu_k = packed(rng)
    weights = scoring(rng, score)
    clean = F.varlen_attention(q, k, v, cu_q, cu_k, score=score, **weights)
    for x, cu in ((q, cu_q), (k, cu_k), (v, cu_k)):
        x[cu[4] : cu[5]] = np.nan
    out = F.varlen_attention(q, k, v, cu_q, cu_k, score=score, **weights)
    own = slice(cu_q[4], cu_q[5])
    assert np.isnan(out[own]).all()
    assert_same_bits(np.delete(out, np.r_[own], 0), np.delete(clean, np.r_[own], 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "manhattan"}, "unknown score 'manhattan'; known: scaled_dot"),
        ({"weight": z(4, 4)}, "score 'scaled_dot' does not accept weight"),
        ({"score": "bilinear"}, "score 'bilinear' needs weight"),
        ({"masked_row": "inf"}, "unknown masked_row 'inf'; known: zero, nan"),
    ],
    ids=str,
)
def test_error_names_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        F.varlen_attention(z(5, 2, 4), z(5, 2, 4), z(5, 2, 4), [0, 5], [0, 5], **options)

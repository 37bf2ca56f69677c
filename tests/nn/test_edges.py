"""Edge cases of nn.MultiheadAttention with each score: no keys, a single query or key, odd sizes,
magnitudes."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from simdformer.nn.options import SCORES
from tests import oracle
from tests.oracle import nn as oracle_nn
from tests.support import assert_same_bits, normal

TOLERANCE = 4e-6


def attention(rng, embed_dim=24, num_heads=4, **options):
    module = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True, **options)
    state = {
        k: normal(rng, *v.shape, scale=0.7 * embed_dim**-0.5)
        for k, v in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module, state


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_fully_masked_row_is_out_projs_bias(rng, score, kind):
    module, w = attention(rng, score=score)
    x = normal(rng, 1, 5, 24)
    mask = np.zeros((5, 5), bool)
    mask[2] = True
    if kind == "float":
        mask = np.where(mask, np.float32(-np.inf), np.float32(0))
    out, weights = module(x, x, x, attn_mask=mask)
    assert not weights[0, 2].any()
    assert_same_bits(out[0, 2], w["out_proj.bias"])
    rest = [0, 1, 3, 4]
    exact = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, kind=score)[0]
    assert_close(out[0, rest], exact[rest])


@pytest.mark.parametrize("score", SCORES)
def test_no_keys_give_out_projs_bias(rng, score):
    module, w = attention(rng, score=score)
    out, weights = module(normal(rng, 2, 3, 24), *[np.zeros((2, 0, 24), np.float32)] * 2)
    assert weights.shape == (2, 3, 0)
    np.testing.assert_array_equal(out, np.broadcast_to(w["out_proj.bias"], (2, 3, 24)))


@pytest.mark.parametrize("score", SCORES)
def test_no_queries_give_an_empty_output(rng, score):
    module, _ = attention(rng, score=score)
    k = normal(rng, 2, 5, 24)
    out, weights = module(np.zeros((2, 0, 24), np.float32), k, k)
    assert (out.shape, weights.shape) == ((2, 0, 24), (2, 0, 5))


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("score", SCORES)
def test_one_query_and_one_key(rng, score):
    module, w = attention(rng, score=score)
    x = normal(rng, 1, 1, 24)
    out, weights = module(x, x, x, average_attn_weights=False)
    assert_same_bits(weights, np.ones((1, 4, 1, 1), np.float32))
    value = oracle.linear(x[0], w["in_proj_weight"][48:], w["in_proj_bias"][48:])
    assert_close(out[0], oracle.linear(value, w["out_proj.weight"], w["out_proj.bias"]))


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("head_dim", [1, 3, 5, 20, 80, 256])
def test_any_head_dim(rng, score, head_dim):
    embed_dim = 3 * head_dim
    module, w = attention(rng, embed_dim, 3, score=score)
    x = normal(rng, 1, 9, embed_dim)
    out, weights = module(x, x, x, average_attn_weights=False)
    expected = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 3, kind=score)
    assert_close(out[0], expected[0])
    assert_close(weights[0], expected[1])


@pytest.mark.parametrize("d_model", [1, 7, 33, 129])
def test_odd_d_model(rng, d_model):
    layer = nn.TransformerEncoderLayer(d_model, 1, 13, batch_first=True)
    w = {k: normal(rng, *v.shape, scale=0.5) for k, v in layer.state_dict().items()}
    layer.load_state_dict(w)
    x = normal(rng, 1, 9, d_model)
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, 1))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4, 1e9, 1e15])
def test_magnitudes_of_the_input(rng, score, scale):
    """Weights are finite and sum to 1, and the largest is at the best key if it is clearly the best."""
    module, w = attention(rng, score=score)
    x = normal(rng, 1, 40, 24, scale=scale)
    out, weights = module(x, x, x, average_attn_weights=False)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    exact = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, kind=score)[1]
    best = np.sort(exact, axis=-1)
    clear = best[..., -1] > 0.999
    if scale < 1 or score in ("cosine", "additive"):  # bounded for any input
        assert np.abs(weights[0] - exact).max() <= (1e-3 if scale > 1 else 1e-5)
    else:
        assert clear.any()
        got = weights[0].argmax(axis=-1) == exact.argmax(axis=-1)
        assert got[clear].mean() > 0.98  # the differences are below rounding errors


@pytest.mark.parametrize("score", SCORES)
def test_packed_padded_and_alone_are_the_same_bits(rng, score):
    """Including sequences without tokens, and empty memories."""
    module, _ = attention(rng, score=score)
    lengths, key_lengths = np.array([5, 0, 17, 1, 3]), np.array([7, 4, 20, 0, 1])
    q, k = normal(rng, 5, 17, 24), normal(rng, 5, 20, 24)
    real, real_keys = (
        np.arange(x.shape[1]) < n[:, None] for x, n in ((q, lengths), (k, key_lengths))
    )
    cu, cu_k = (np.concatenate([[0], np.cumsum(n)]) for n in (lengths, key_lengths))
    packed = module(q[real], k[real_keys], k[real_keys], cu_seqlens=cu, cu_seqlens_k=cu_k)[0]
    padded = module(q, k, k, key_padding_mask=~real_keys)[0]
    assert_same_bits(packed, padded[real])
    for i, (n, m) in enumerate(zip(lengths, key_lengths, strict=True)):
        alone = module(q[i : i + 1, :n], *[k[i : i + 1, :m]] * 2)[0]
        assert_same_bits(alone[0], packed[cu[i] : cu[i + 1]])


@pytest.mark.parametrize("score", SCORES)
def test_the_order_of_keys_has_no_effect(rng, score):
    module, _ = attention(rng, score=score)
    q, k = normal(rng, 1, 5, 24), normal(rng, 1, 30, 24)
    order = rng.permutation(30)
    out, weights = module(q, k, k)
    shuffled, shuffled_weights = module(q, k[:, order], k[:, order])
    np.testing.assert_allclose(shuffled, out, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shuffled_weights, weights[..., order], rtol=1e-5, atol=1e-6)


def test_euclidean_is_dot_with_a_bias_of_each_key(rng):
    module, w = attention(rng, score="euclidean")
    x = normal(rng, 1, 9, 24)
    keys = oracle.linear(x[0], w["in_proj_weight"][24:48], w["in_proj_bias"][24:48])
    norms = (keys.reshape(9, 4, 6) ** 2).sum(axis=-1).T  # (heads, keys)
    bias = np.broadcast_to(-norms[:, None] / np.sqrt(6), (4, 9, 9)).astype(np.float32)
    dot = nn.MultiheadAttention(24, 4, batch_first=True, scale=2 / 6**0.5)
    dot.load_state_dict(w)
    np.testing.assert_allclose(
        dot(x, x, x, attn_mask=bias)[0], module(x, x, x)[0], rtol=1e-5, atol=1e-6
    )


def test_a_bilinear_head_is_a_head_with_other_queries(rng):
    """q^T W k = (W^T q)^T k; with W the identity it is a dot product."""
    module, w = attention(rng, score="bilinear")
    weight = w.pop("bilinear_weight")
    x = normal(rng, 1, 9, 24)
    dot = nn.MultiheadAttention(24, 4, batch_first=True, score="dot")
    query, rest = np.split(w["in_proj_weight"], [24])
    query_bias, rest_bias = np.split(w["in_proj_bias"], [24])
    query = np.einsum("hij,hie->hje", weight, query.reshape(4, 6, 24)).reshape(24, 24)
    query_bias = np.einsum("hij,hi->hj", weight, query_bias.reshape(4, 6)).reshape(24)
    w["in_proj_weight"] = np.concatenate([query, rest])
    w["in_proj_bias"] = np.concatenate([query_bias, rest_bias])
    dot.load_state_dict(w)
    np.testing.assert_allclose(dot(x, x, x)[0], module(x, x, x)[0], rtol=1e-5, atol=1e-6)


def test_scores_of_rotated_heads_depend_only_on_distance(rng):
    """Tokens in front that nobody attends to change weights by rounding only."""
    module, _ = attention(rng, position=nn.RotaryEmbedding(6))
    x = normal(rng, 1, 12, 24)
    shifted = np.concatenate([normal(rng, 1, 100, 24), x], axis=1)
    mask = np.zeros((112, 112), bool)
    mask[:, :100] = True
    weights = module(shifted, shifted, shifted, attn_mask=mask)[1][:, 100:, 100:]
    np.testing.assert_allclose(weights, module(x, x, x)[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 50, 3000])
def test_added_positions_have_no_maximum_length(length):
    encoding = nn.SinusoidalPositionalEncoding(24, batch_first=True)
    x = np.zeros((1, length, 24), np.float32)
    whole = encoding(x)
    assert len(np.unique(whole[0], axis=0)) == length
    assert np.abs(whole).max() <= 1
    assert_same_bits(encoding(x[:, : length // 2 + 1]), whole[:, : length // 2 + 1].copy())

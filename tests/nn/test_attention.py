"""nn.MultiheadAttention compared with definitions in float64, at every level."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from tests.oracle import nn as oracle_nn
from tests.support import assert_same_bits, normal

TOLERANCE = 2e-6  # relative to the output's largest element
SCORES = ["scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive"]


def attention(rng, embed_dim, heads, **options):
    """An attention with random parameters, small enough for scores of a few units, because an error of a
    score is a relative error of its weight."""
    module = nn.MultiheadAttention(embed_dim, heads, batch_first=True, **options)
    state = {
        k: normal(rng, *v.shape, scale=0.7 * embed_dim**-0.5)
        for k, v in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module, state


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 1), (2, 3), (3, 5), (2, 20), (1, 80)])
def test_scores(rng, score, heads, head_dim):
    module, w = attention(rng, heads * head_dim, heads, score=score)
    q, k = normal(rng, 2, 7, heads * head_dim), normal(rng, 2, 9, heads * head_dim)
    out, weights = module(q, k, k, average_attn_weights=False)
    for i in range(2):
        expected = oracle_nn.multihead_attention(q[i], k[i], k[i], w, heads, kind=score)
        assert_close(out[i], expected[0])
        assert_close(weights[i], expected[1])


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_queries(rng, kv_heads):
    module, w = attention(rng, 24, 4, num_kv_heads=kv_heads)
    x = normal(rng, 1, 6, 24)
    expected = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, kv_heads=kv_heads)
    assert_close(module(x, x, x)[0][0], expected[0])


def test_tied_queries_and_keys(rng):
    module, w = attention(rng, 24, 4, tie_qk=True)
    x = normal(rng, 1, 6, 24)
    out, weights = module(x, x, x, average_attn_weights=False)
    expected = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, tie_qk=True)
    assert_close(out[0], expected[0])
    assert_close(weights[0], expected[1])


def test_rotary_positions(rng):
    module, w = attention(rng, 24, 4, position=nn.RotaryEmbedding(6))
    x = normal(rng, 1, 11, 24)
    expected = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, rotary=True)
    assert_close(module(x, x, x)[0][0], expected[0])


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_head_mask(rng, score):
    module, w = attention(rng, 24, 4, score=score)
    x = normal(rng, 1, 6, 24)
    factors = np.array([1, 0, 0.5, 2], np.float32)
    out, weights = module(x, x, x, head_mask=factors, average_attn_weights=False)
    expected = oracle_nn.multihead_attention(x[0], x[0], x[0], w, 4, kind=score, head_mask=factors)
    assert_close(out[0], expected[0])
    assert_close(weights[0], expected[1])


@pytest.mark.parametrize("score", ["scaled_dot", "bilinear", "additive"])
def test_pruned_heads_are_masked_heads(rng, score):
    module, _ = attention(rng, 24, 4, score=score, position=nn.ALiBi(4))
    x = normal(rng, 2, 6, 24)
    masked, _ = module(x, x, x, head_mask=np.array([1, 0, 1, 0], np.float32))
    module.prune_heads([1, 3])
    assert module.state_dict()["in_proj_weight"].shape == (36, 24)
    assert_close(module(x, x, x)[0], masked)


def test_out_proj_of_head_outputs_is_the_output(rng):
    module, w = attention(rng, 24, 4)
    x = normal(rng, 2, 6, 24)
    heads = module.head_outputs(x, x, x)
    assert heads.shape == (2, 6, 4, 6)
    mixed = heads.reshape(2, 6, 24) @ w["out_proj.weight"].T + w["out_proj.bias"]
    np.testing.assert_allclose(mixed, module(x, x, x)[0], rtol=1e-5, atol=1e-6)


def test_a_query_without_keys_gives_zero_weights_and_the_bias(rng):
    module, w = attention(rng, 24, 4)
    x = normal(rng, 1, 5, 24)
    mask = np.zeros((5, 5), bool)
    mask[2] = True
    out, weights = module(x, x, x, attn_mask=mask)
    assert not weights[0, 2].any()
    assert_same_bits(out[0, 2], w["out_proj.bias"])


def test_a_query_without_keys_gives_nan_if_asked(rng):
    module, _ = attention(rng, 24, 4, masked_row="nan")
    x = normal(rng, 1, 5, 24)
    mask = np.zeros((5, 5), bool)
    mask[2] = True
    out, weights = module(x, x, x, attn_mask=mask)
    assert np.isnan(out[0, 2]).all()
    assert np.isnan(weights[0, 2]).all()
    assert not np.isnan(out[0, [0, 1, 3, 4]]).any()


@pytest.mark.parametrize("score", SCORES)
def test_nan_at_a_masked_key_does_not_spread(rng, score):
    module, _ = attention(rng, 24, 4, score=score)
    q, k = normal(rng, 2, 5, 24), normal(rng, 2, 6, 24)
    padding = np.zeros((2, 6), bool)
    padding[1, 4:] = True
    clean, _ = module(q, k, k, key_padding_mask=padding)
    k[1, 4:] = np.nan
    assert_same_bits(module(q, k, k, key_padding_mask=padding)[0], clean)


def test_a_causal_mask_has_the_bits_of_any_other_mask(rng):
    module, _ = attention(rng, 24, 4)
    x = normal(rng, 2, 9, 24)
    mask = ~np.tri(9, dtype=bool)
    causal, _ = module(x, x, x, attn_mask=mask, is_causal=True)
    by_head, _ = module(x, x, x, attn_mask=np.broadcast_to(mask, (8, 9, 9)))
    assert_same_bits(causal, by_head)


def test_layouts_agree_to_the_bit(rng):
    module, w = attention(rng, 24, 4)
    x = normal(rng, 2, 5, 24)
    out, _ = module(x, x, x)
    packed = x.reshape(10, 24)
    assert_same_bits(
        module(packed, packed, packed, cu_seqlens=[0, 5, 10], need_weights=False)[0],
        out.reshape(10, 24),
    )
    assert_same_bits(module(x[1], x[1], x[1])[0], out[1])
    other = nn.MultiheadAttention(24, 4)
    other.load_state_dict(w)
    t = x.transpose(1, 0, 2)
    assert_same_bits(other(t, t, t)[0].transpose(1, 0, 2).copy(), out)


@pytest.mark.parametrize("score", SCORES)
def test_threads_do_not_change_bits(rng, score):
    module, _ = attention(rng, 40, 5, score=score)
    x = normal(rng, 3, 50, 40)
    one, _ = module(x, x, x, num_threads=1)
    assert_same_bits(module(x, x, x, num_threads=3)[0], one)


ERRORS = [
    ({"embed_dim": 10, "num_heads": 3}, "embed_dim 10 is not divisible by num_heads 3"),
    ({"embed_dim": 8, "num_heads": 4, "num_kv_heads": 3}, "not a multiple of num_kv_heads 3"),
    (
        {"embed_dim": 8, "num_heads": 2, "score": "luong"},
        "unknown score 'luong'; known: scaled_dot",
    ),
    ({"embed_dim": 8, "num_heads": 2, "dropout": 2.0}, r"dropout must be in \[0, 1\], got 2.0"),
    ({"embed_dim": 8, "num_heads": 2, "device": "cuda"}, "device must be None or 'cpu'"),
    ({"embed_dim": 8, "num_heads": 2, "dtype": "float16"}, "dtype must be None or float32"),
    ({"embed_dim": 8, "num_heads": 2, "masked_row": "x"}, "masked_row must be 'zero' or 'nan'"),
    ({"embed_dim": 8, "num_heads": 2, "position": nn.ALiBi(4)}, "ALiBi is of 4 heads"),
    ({"embed_dim": 8, "num_heads": 2, "position": nn.RotaryEmbedding(6)}, "heads have 4"),
    ({"embed_dim": 8, "num_heads": 2, "tie_qk": True, "kdim": 4}, "tie_qk needs keys of embed_dim"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda x: str(x)[:40])
def test_constructor_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.MultiheadAttention(**arguments)


CALLS = [
    ({"attn_mask": np.zeros((5, 4), bool)}, ValueError, r"attn_mask must have shape \(5, 5\) or"),
    ({"attn_mask": np.zeros((5, 5), np.uint8)}, TypeError, "attn_mask must be bool .*got uint8"),
    ({"attn_mask": np.zeros((5, 5))}, TypeError, "attn_mask must be bool .* got float64"),
    ({"key_padding_mask": np.zeros((2, 4), bool)}, ValueError, r"must have shape \(2, 5\)"),
    ({"is_causal": True}, ValueError, "is_causal is a hint about attn_mask"),
    ({"head_mask": np.ones(3, np.float32)}, ValueError, r"head_mask must have shape \(2,\)"),
    ({"cu_seqlens": [0, 5]}, ValueError, r"must have shape \(total_tokens, 8\)"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CALLS, ids=lambda x: str(x)[:40])
def test_call_errors(rng, arguments, error, message):
    x = normal(rng, 2, 5, 8)
    with pytest.raises(error, match=message):
        nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x, **arguments)


def test_float64_is_refused():
    x = np.zeros((2, 5, 8))
    with pytest.raises(TypeError, match="query must be float32, got float64"):
        nn.MultiheadAttention(8, 2)(x, x, x)


def test_all_heads_cannot_be_pruned():
    with pytest.raises(ValueError, match="heads must be some, but not all, of 0 to 1"):
        nn.MultiheadAttention(8, 2).prune_heads([0, 1])

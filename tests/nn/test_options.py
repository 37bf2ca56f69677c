"""Attention options that torch lacks: windows, QK-norm, a learned logit scale, layers in turn."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from simdformer.nn.layer import GATED
from tests import oracle
from tests.oracle import f64
from tests.oracle import nn as oracle_nn
from tests.oracle.scores import window
from tests.support import assert_same_bits, normal

E, H, D = 24, 4, 6
TOLERANCE = 2e-6


def attention(rng, **options):
    module = nn.MultiheadAttention(E, H, batch_first=True, **options)
    state = {k: normal(rng, *v.shape, scale=0.4) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module, state


def assert_close(actual, exact):
    assert actual.shape == exact.shape
    assert np.abs(actual - exact).max() <= TOLERANCE * np.abs(exact).max()


def closed(keep):
    return np.where(keep, 0.0, -np.inf)


# Windows


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("size", [(2, 3), (0, 0), (4, -1), (-1, 0), (-1, -1), (50, 50)])
def test_a_window_is_a_mask_by_distance(rng, size):
    module, w = attention(rng, window_size=size)
    x = normal(rng, 1, 40, E)
    out, weights = module(x, x, x, average_attn_weights=False)
    keep = window(40, 40, *size)
    exact, exact_weights = oracle_nn.multihead_attention(x[0], x[0], x[0], w, H, bias=closed(keep))
    assert_close(out[0], exact)
    assert_close(weights[0], exact_weights)


def test_a_window_and_a_causal_mask_are_both_applied(rng):
    module, w = attention(rng, window_size=(3, 3))
    x = normal(rng, 1, 20, E)
    keep = window(20, 20, 3, 0)
    exact = oracle_nn.multihead_attention(x[0], x[0], x[0], w, H, bias=closed(keep))[0]
    assert_close(module(x, x, x, attn_mask=~np.tri(20, dtype=bool))[0][0], exact)


@pytest.mark.parametrize("position", [None, nn.RotaryEmbedding(6), nn.ShawRelativePosition(6, 4)])
def test_a_window_with_a_cache_has_the_bits_of_a_whole_pass(rng, position):
    layer = nn.TransformerEncoderLayer(
        E, H, 37, batch_first=True, window_size=(5, 2), position=position
    )
    stack = nn.TransformerEncoder(layer, 2)
    x = normal(rng, 2, 30, E)
    whole = stack(x, mask=~np.tri(30, dtype=bool))
    cache = nn.DecoderCache(2)
    parts = [stack(x[:, :12], cache=cache)]
    parts += [stack(x[:, i : i + 1], cache=cache) for i in range(12, 20)]
    parts.append(stack(x[:, 20:], cache=cache))
    assert_same_bits(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("size", [(1,), (-2, 0), (1.5, 2), (1, 2, 3)])
def test_an_invalid_window_is_refused(size):
    with pytest.raises(ValueError, match="window_size must be"):
        nn.MultiheadAttention(E, H, window_size=size)


# QK-norm


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize(
    "norm", [nn.RMSNorm(D, eps=1e-6), nn.LayerNorm(D), nn.LayerNorm(D, bias=False)]
)
@pytest.mark.parametrize("score", ["scaled_dot", "euclidean", "additive"])
def test_qk_norm_is_of_each_heads_queries_and_keys(rng, norm, score):
    module, w = attention(rng, qk_norm=norm, score=score)
    x = normal(rng, 1, 9, E)
    kind = "rms" if isinstance(norm, nn.RMSNorm) else "layer"

    def heads(which, name):
        rows = slice(which * E, (which + 1) * E)
        y = oracle.linear(x[0], w["in_proj_weight"][rows], w["in_proj_bias"][rows])
        y = y.reshape(9, H, D).swapaxes(0, 1)
        return oracle_nn.norm(y, oracle_nn.part(w, name), kind, norm.eps) if name else y

    q, k, v = heads(0, "q_norm"), heads(1, "k_norm"), heads(2, "")
    contexts = [oracle.softmax(oracle_nn.score(score, q[h], k[h], w, h)) @ v[h] for h in range(H)]
    exact = oracle.linear(np.concatenate(contexts, 1), w["out_proj.weight"], w["out_proj.bias"])
    assert_close(module(x, x, x)[0][0], exact)


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("position", [None, nn.RotaryEmbedding(D)])
def test_qk_norm_may_be_of_all_heads_features(rng, position):
    module, w = attention(rng, qk_norm=nn.LayerNorm(E), position=position)
    x = normal(rng, 1, 9, E)

    def heads(which, name):
        rows = slice(which * E, (which + 1) * E)
        y = oracle.linear(x[0], w["in_proj_weight"][rows], w["in_proj_bias"][rows])
        if name:
            y = oracle_nn.norm(y, oracle_nn.part(w, name), "layer", 1e-5)
        y = y.reshape(9, H, D)
        turned = name and position is not None
        return np.stack([oracle_nn.rotate(y[:, h]) if turned else y[:, h] for h in range(H)])

    q, k, v = heads(0, "q_norm"), heads(1, "k_norm"), heads(2, "")
    contexts = [oracle.softmax(q[h] @ k[h].T / np.sqrt(D)) @ v[h] for h in range(H)]
    exact = oracle.linear(np.concatenate(contexts, 1), w["out_proj.weight"], w["out_proj.bias"])
    assert_close(module(x, x, x)[0][0], exact)
    with pytest.raises(
        ValueError, match="cannot be pruned if qk_norm is over the features of all heads"
    ):
        module.prune_heads([1])


def test_qk_norm_comes_before_rotation(rng):
    """A norm with weights does not commute with a rotation of pairs."""
    plain, w = attention(rng, position=nn.RotaryEmbedding(D))
    normed = nn.MultiheadAttention(
        E, H, batch_first=True, position=nn.RotaryEmbedding(D), qk_norm=nn.RMSNorm(D)
    )
    weight = normal(rng, D)
    normed.load_state_dict({**w, "q_norm.weight": weight, "k_norm.weight": weight})
    x = normal(rng, 1, 1, E)
    y = normal(rng, 1, 7, E)
    # A single query at position 0 is not rotated, so only the keys show the order.
    rows = oracle.linear(y[0], w["in_proj_weight"][E : 2 * E], w["in_proj_bias"][E : 2 * E])
    keys = oracle_nn.norm(rows.reshape(7, H, D), {"weight": weight}, "rms", 2.0**-23)
    rotated = np.stack([oracle_nn.rotate(keys[:, h]) for h in range(H)])
    q = oracle.linear(x[0], w["in_proj_weight"][:E], w["in_proj_bias"][:E]).reshape(H, 1, D)
    q = oracle_nn.norm(q, {"weight": weight}, "rms", 2.0**-23)
    exact = oracle.softmax(q @ rotated.swapaxes(1, 2) / np.sqrt(D))
    assert_close(normed(x, y, y, average_attn_weights=False)[1][0], exact)
    assert not np.allclose(plain(x, y, y, average_attn_weights=False)[1][0], exact, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"qk_norm": "rms"}, TypeError, "qk_norm must be a LayerNorm or RMSNorm, got str"),
        (
            {"qk_norm": nn.RMSNorm(5)},
            ValueError,
            r"qk_norm must have head_dim=6 features, or of all heads' 24 .*, got \(5,\)",
        ),
        ({"qk_norm": nn.RMSNorm(6), "score": "bilinear"}, ValueError, "mutually exclusive"),
        ({"logit_scale": True, "scale": 2.0}, ValueError, "mutually exclusive"),
        (
            {"logit_scale": True, "score": "euclidean", "num_kv_heads": 2},
            ValueError,
            "needs num_kv_heads equal to num_heads",
        ),
    ],
    ids=lambda x: str(x)[:40],
)
def test_conflicting_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        nn.MultiheadAttention(E, H, **options)


# A learned scale


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("score", ["scaled_dot", "bilinear", "euclidean", "cosine", "additive"])
def test_logit_scale_is_the_logarithm_of_each_heads_scale(rng, score):
    module, w = attention(rng, logit_scale=True, score=score)
    w["logit_scale"] = np.array([-1.0, 0.0, 2.5, 9.0], np.float32)  # the last one is above log(100)
    module.load_state_dict(w)
    x = normal(rng, 1, 9, E)
    q, k, v = (
        oracle.linear(x[0], w["in_proj_weight"][i * E :][:E], w["in_proj_bias"][i * E :][:E])
        .reshape(9, H, D)
        .swapaxes(0, 1)
        for i in range(3)
    )
    by_dim = np.sqrt(D) if score in ("scaled_dot", "euclidean") else 1.0
    scales = np.minimum(np.exp(f64(w["logit_scale"])), 100.0) * by_dim
    weights = [
        oracle.softmax(scales[h] * oracle_nn.score(score, q[h], k[h], w, h)) for h in range(H)
    ]
    got = module(x, x, x, average_attn_weights=False)[1][0]
    # A scale of 100 multiplies the rounding error of a score by 100.
    assert np.abs(got - np.array(weights)).max() <= 2e-4
    context = np.concatenate([p @ v[h] for h, p in enumerate(weights)], 1)
    exact = oracle.linear(context, w["out_proj.weight"], w["out_proj.bias"])
    assert np.abs(module(x, x, x)[0][0] - exact).max() <= 2e-4 * np.abs(exact).max()


def test_logit_scale_is_initially_ten():
    weights = nn.MultiheadAttention(E, H, logit_scale=True, score="cosine").logit_scale
    np.testing.assert_allclose(np.exp(weights), np.full(H, 10.0), rtol=1e-6)


# Layers in turn


def test_a_stack_takes_several_layers_in_turn(rng):
    """As in ModernBERT: global attention in every third layer, a window in the others."""
    options = {"batch_first": True, "norm_first": True, "activation": "geglu", "bias": False}
    everywhere = nn.TransformerEncoderLayer(
        E, H, 37, position=nn.RotaryEmbedding(D, base=160000.0), **options
    )
    near = nn.TransformerEncoderLayer(
        E, H, 37, position=nn.RotaryEmbedding(D), window_size=(2, 2), **options
    )
    stack = nn.TransformerEncoder([everywhere, near, near], 4, nn.LayerNorm(E, bias=False))
    stack.layers[0].norm1 = nn.Identity()
    w = {k: normal(rng, *v.shape, scale=0.4) for k, v in stack.state_dict().items()}
    stack.load_state_dict(w)
    assert "layers.0.norm1.weight" not in w
    x = normal(rng, 1, 20, E)
    y = x
    for layer in stack.layers:
        y = layer(y)
    assert_same_bits(stack(x), stack.norm(y))
    maps = stack(x, need_weights=True)[1]
    for i, weights in enumerate(maps):
        seen = weights[0].any(axis=0)
        np.testing.assert_array_equal(seen, True if i % 3 == 0 else window(20, 20, 2, 2))


def test_a_layer_without_its_norm_passes_its_input_on(rng):
    layer = nn.TransformerEncoderLayer(E, H, 37, batch_first=True, norm_first=True)
    layer.norm1 = nn.Identity()
    x = normal(rng, 1, 5, E)
    w = oracle_nn.part(layer.state_dict(), "self_attn")
    after = x[0] + oracle_nn.multihead_attention(x[0], x[0], x[0], w, H)[0]
    state = layer.state_dict()
    normed = oracle_nn.norm(after, oracle_nn.part(state, "norm2"), "layer")
    exact = after + oracle_nn.feed_forward(normed, state, "relu")
    assert_close(layer(x)[0], exact)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "the number of layers must be from 1 to num_layers=2, got 0"),
        ([nn.TransformerEncoderLayer(E, H)] * 3, "from 1 to num_layers=2, got 3"),
        (
            [nn.TransformerEncoderLayer(E, H), nn.TransformerEncoderLayer(E, 3)],
            "layers must have the same nhead, got 4 and 3",
        ),
    ],
    ids=lambda x: str(x)[:30],
)
def test_layers_that_cannot_be_used_in_turn_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        nn.TransformerEncoder(layers, 2)


def test_unknown_options_of_a_layer_are_refused():
    with pytest.raises(
        TypeError, match="TransformerEncoderLayer got unknown arguments: kdim, typo"
    ):
        nn.TransformerEncoderLayer(E, H, typo=1, kdim=3)


# Scale, softcap, masks


@pytest.mark.parametrize(
    "score", ["scaled_dot", "dot", "bilinear", "cosine", "additive", "euclidean"]
)
def test_a_scale_replaces_that_of_the_score(rng, score):
    module, w = attention(rng, score=score, scale=0.37)
    x = normal(rng, 1, 9, E)
    own = D**-0.5 if score in ("scaled_dot", "euclidean") else 1.0
    exact = attention_with(x[0], w, score, lambda s: s * 0.37 / own)
    assert_close(module(x, x, x)[0][0], exact)


@pytest.mark.parametrize("score", ["scaled_dot", "cosine", "bilinear", "additive"])
def test_a_softcap_bounds_the_scores(rng, score):
    module, w = attention(rng, score=score, softcap=0.7)
    x = normal(rng, 1, 9, E, scale=3.0)
    exact = attention_with(x[0], w, score, lambda s: 0.7 * np.tanh(s / 0.7))
    assert_close(module(x, x, x)[0][0], exact)


def attention_with(x, w, score, change):
    """Self-attention with modified scores before softmax."""
    q, k, v = (
        oracle.linear(x, w["in_proj_weight"][i * E :][:E], w["in_proj_bias"][i * E :][:E])
        .reshape(-1, H, D)
        .swapaxes(0, 1)
        for i in range(3)
    )
    contexts = [
        oracle.softmax(change(oracle_nn.score(score, q[h], k[h], w, h))) @ v[h] for h in range(H)
    ]
    return oracle.linear(np.concatenate(contexts, 1), w["out_proj.weight"], w["out_proj.bias"])


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_of_every_sequence_and_head(rng, kind):
    module, w = attention(rng)
    x = normal(rng, 2, 7, E)
    mask = rng.random((2 * H, 7, 7)) < 0.3
    mask[:, :, 0] = False
    bias = np.where(mask, -np.inf, 0.0)
    if kind == "float":
        mask = np.where(mask, -np.inf, normal(rng, 2 * H, 7, 7)).astype(np.float32)
        bias = f64(mask)
    out, weights = module(x, x, x, attn_mask=mask, average_attn_weights=False)
    for i in range(2):
        exact = oracle_nn.multihead_attention(
            x[i], x[i], x[i], w, H, bias=bias[i * H : (i + 1) * H]
        )
        assert_close(out[i], exact[0])
        assert_close(weights[i], exact[1])


@pytest.mark.parametrize("kind", ["right", "left", "float"])
def test_a_key_padding_mask_of_each_sequence(rng, kind):
    module, w = attention(rng)
    x = normal(rng, 2, 7, E)
    padding = np.arange(7) >= np.array([[5], [7]])
    if kind == "left":
        padding = padding[:, ::-1].copy()
    bias = np.where(padding, -np.inf, 0.0)
    if kind == "float":
        bias = np.where(padding, -np.inf, normal(rng, 2, 7))
        padding = bias.astype(np.float32)
    out = module(x, x, x, key_padding_mask=padding)[0]
    for i in range(2):
        exact = oracle_nn.multihead_attention(x[i], x[i], x[i], w, H, bias=f64(bias[i]))[0]
        assert_close(out[i], exact)


# Activations and gates


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_every_activation(rng, activation):
    layer = nn.TransformerEncoderLayer(E, H, 37, batch_first=True, activation=activation)
    w = {k: normal(rng, *v.shape, scale=0.4) for k, v in layer.state_dict().items()}
    layer.load_state_dict(w)
    x = normal(rng, 1, 7, E)
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, H, activation=activation))


@pytest.mark.parametrize("gate", GATED)
def test_every_gate(rng, gate):
    layer = nn.TransformerEncoderLayer(E, H, 37, batch_first=True, activation=gate)
    w = {k: normal(rng, *v.shape, scale=0.4) for k, v in layer.state_dict().items()}
    layer.load_state_dict(w)
    x = normal(rng, 1, 7, E)
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, H, gate=GATED[gate]))


# head_dim


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("head_dim", [3, 10])
def test_heads_may_have_any_size(rng, head_dim, kv_heads):
    module, w = attention(rng, head_dim=head_dim, num_kv_heads=kv_heads)
    inner, kv = H * head_dim, kv_heads * head_dim
    assert w["in_proj_weight"].shape == (inner + 2 * kv, E)
    assert w["out_proj.weight"].shape == (E, inner)
    x = normal(rng, 7, E)
    out, weights = module(x, x, x, average_attn_weights=False)
    projected = f64(x) @ f64(w["in_proj_weight"]).T + w["in_proj_bias"]
    cut = np.split(projected, [inner, inner + kv], axis=1)
    q, k, v = (part.reshape(7, -1, head_dim).swapaxes(0, 1) for part in cut)
    k, v = (np.repeat(part, H // kv_heads, axis=0) for part in (k, v))
    exact = oracle.softmax(q @ k.swapaxes(1, 2) / head_dim**0.5)
    assert_close(weights, exact)
    heads = (exact @ v).swapaxes(0, 1).reshape(7, inner)
    assert_close(out, heads @ f64(w["out_proj.weight"]).T + w["out_proj.bias"])
    shape = module.head_outputs(x, x, x).shape
    assert shape == (7, H, head_dim)


def test_positions_with_heads_of_embed_dim_refuse_other_sizes():
    for position in (nn.TransformerXLRelativePosition(E, H), nn.DisentangledRelativePosition(E, H)):
        with pytest.raises(ValueError, match="needs heads of embed_dim / num_heads features"):
            nn.MultiheadAttention(E, H, head_dim=10, position=position)

"""The reference of encoders with rotary positions, and of T5's encoder; float64 NumPy, one sequence at a
time.

    n  tokens    d  hidden_size    h  query heads    g  key heads    e  head_dim    f  intermediate size

`w` maps names to arrays. Parts that are missing in it (a bias, a norm, token types) are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.oracle import ACTIVATIONS, f64, layer_norm, linear
from tests.oracle import nn as oracle_nn
from tests.oracle.positions import rotary
from tests.oracle.scores import attend, repeat_heads, scaled_dot, window


@dataclass(frozen=True)
class Layer:
    """inv_freq (e / 2,): radians per position; None for no rotation. window: keys before and after a query;
    -1: all. bias: from n to a bias of the scores, (h, n, n). scale: of the scores; None for e^-1/2."""

    inv_freq: np.ndarray | None
    window: tuple[int, int] = (-1, -1)
    bias: Callable | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Definition:
    """rms: RMSNorm instead of LayerNorm; norm_offset is added to its weights. factor: of cos and sin, 1
    except for some scalings. word_scale: of the embeddings. output_residual: whether output norms are applied
    after the residual term is added. top_k: the number of experts that a token uses, in layers with a
    router."""

    layers: tuple[Layer, ...]
    num_heads: int
    activation: str
    eps: float
    norm_first: bool
    rms: bool = False
    factor: float = 1.0
    norm_offset: float = 0.0
    word_scale: float = 1.0
    output_residual: bool = False
    top_k: int = 0


def rms_norm(x, weight, eps):
    """Zhang and Sennrich 2019, eps inside the root."""
    x = f64(x)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * f64(weight)


def norm(x, w, name, definition):
    weight, bias = w.get(f"{name}.weight"), w.get(f"{name}.bias")
    if weight is None:
        return f64(x)
    if definition.rms:
        return rms_norm(x, f64(weight) + definition.norm_offset, definition.eps)
    return layer_norm(x, weight, bias, definition.eps)


def dense(x, w, name):
    return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def attention(x, w, stem, layer, definition):
    """Queries and keys are normalized, head by head or all together, then rotated by their positions."""
    n, h = len(x), definition.num_heads
    head_dim = len(w[f"{stem}.query.weight"]) // h

    def heads(name):  # (n, d) -> (h or g, n, e)
        y = dense(x, w, f"{stem}.{name}")
        if len(w.get(f"{stem}.{name}_norm.weight", ())) > head_dim:
            y = norm(y, w, f"{stem}.{name}_norm", definition)
        return y.reshape(n, -1, head_dim).swapaxes(0, 1)

    def turned(name):
        normed = heads(name)
        if len(w.get(f"{stem}.{name}_norm.weight", ())) == head_dim:
            normed = norm(normed, w, f"{stem}.{name}_norm", definition)
        if layer.inv_freq is None:
            return normed
        return rotary(normed, np.arange(n), layer.inv_freq) * definition.factor

    k, v = (repeat_heads(part, h) for part in (turned("key"), heads("value")))
    scores = scaled_dot(turned("query"), k, layer.scale)
    if layer.bias is not None:
        scores = scores + layer.bias(n)
    out, _ = attend(scores, v, window(n, n, *layer.window))
    return dense(out.swapaxes(0, 1).reshape(n, -1), w, f"{stem}.output")  # -> (n, d)


def feed_forward(x, w, stem, definition):
    """down(activation(gate(x)) up(x)), as in Shazeer 2020's GLU variants; without a gate
    down(activation(up(x)))."""
    if f"{stem}.router.weight" in w:
        return mixture_of_experts(x, w, stem, definition)
    if f"{stem}.gate.weight" not in w:
        return dense(
            ACTIVATIONS[definition.activation](dense(x, w, f"{stem}.up")), w, f"{stem}.down"
        )
    gate = ACTIVATIONS[definition.activation](dense(x, w, f"{stem}.gate"))  # -> (n, f)
    return dense(gate * dense(x, w, f"{stem}.up"), w, f"{stem}.down")  # -> (n, d)


def mixture_of_experts(x, w, stem, definition):
    """NomicRouter and NomicExperts of nomic-bert-2048's modeling_hf_nomic_bert.py: the softmax over all experts,
    then the top_k largest, which are not normalized again. The bias is added once. Both tensors of the experts
    have a row for each feature of the inner layer, so the second one is not transposed."""
    router = w[f"{stem}.router.weight"]
    each = range(len(router))
    ups, downs = (np.split(w[f"{stem}.experts.{name}"], len(router)) for name in ("up", "down"))
    experts = {
        "router.weight": router,
        "bias": w[f"{stem}.experts.bias"],
        **{f"linear1.{e}.weight": ups[e] for e in each},
        **{f"linear2.{e}.weight": downs[e].T for e in each},
    }
    return oracle_nn.mixture_of_experts(x, experts, definition.activation, definition.top_k)


def encoder_layer(x, w, stem, layer, definition):
    names = "attention", "feed_forward"
    parts = (
        lambda x: attention(x, w, stem, layer, definition),
        lambda x: feed_forward(x, w, stem, definition),
    )
    for part, name in zip(parts, names, strict=True):
        around, output = f"{stem}.{name}_norm", f"{stem}.{name}_output_norm"
        if definition.norm_first:
            x = x + norm(part(norm(x, w, around, definition)), w, output, definition)
        else:
            out = part(x)
            if f"{output}.weight" in w:
                inner = x if definition.output_residual else 0.0
                out = norm(inner + out, w, output, definition)
            x = norm(x + out, w, around, definition)
    return x


def encoder(input_ids, w, definition):
    """From ids to hidden states: (n,) -> (n, d). All tokens have type 0."""
    x = f64(w["words.weight"])[input_ids] * definition.word_scale
    if "token_types.weight" in w:
        x = x + f64(w["token_types.weight"])[0]
    x = norm(x, w, "words_norm", definition)
    for i, layer in enumerate(definition.layers):
        x = encoder_layer(x, w, f"layers.{i}", layer, definition)
    return norm(x, w, "last_norm", definition)

"""Multi-head attention and Transformer layers in float64: the definitions for the tests of simdformer.nn. `w`
is a module's state_dict; one sequence at a time, no padding. L queries, S keys, h heads."""

from __future__ import annotations

import numpy as np

from tests import oracle
from tests.oracle import f64


def score(kind, q, k, w, head):
    """One head's scores (L, S) before masks, each with its usual factor."""
    d = q.shape[1]
    if kind == "scaled_dot":
        return q @ k.T / np.sqrt(d)
    if kind == "dot":
        return q @ k.T
    if kind == "bilinear":
        return q @ f64(w["bilinear_weight"][head]) @ k.T
    if kind == "cosine":
        return oracle.l2_normalize(q) @ oracle.l2_normalize(k).T
    if kind == "euclidean":
        return -((q[:, None] - k[None]) ** 2).sum(-1) / np.sqrt(d)
    if kind == "additive":
        return np.tanh(q[:, None] + k[None]) @ f64(w["additive_weight"][head])
    raise ValueError(kind)


def rotate(x, base=10000.0):
    """Rotary positions 0, 1, ... on all features, pairs (j, j + d / 2)."""
    half = x.shape[1] // 2
    angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    a, b = x[:, :half], x[:, half:]
    c, s = np.cos(angles), np.sin(angles)
    return np.concatenate([a * c - b * s, b * c + a * s], axis=1)


def multihead_attention(
    query, key, value, w, heads, *, kv_heads=None, kind="scaled_dot", bias=0.0, rotary=False,
    tie_qk=False, head_mask=None,
):  # fmt: skip
    """Output (L, E) and weights (h, L, S). bias: (L, S) or (h, L, S), -inf where masked."""
    kv_heads = kv_heads or heads
    e = query.shape[1]
    d = e // heads
    rows = np.split(np.arange(len(w["in_proj_weight"])), [e, e + kv_heads * d])
    if tie_qk:
        rows[1] = rows[0]
    b = w.get("in_proj_bias")
    q, k, v = (
        oracle.linear(x, w["in_proj_weight"][r], None if b is None else b[r])
        for x, r in zip((query, key, value), rows, strict=True)
    )
    contexts, weights = [], []
    for h in range(heads):
        at = slice(h * d, (h + 1) * d)
        kv = h // (heads // kv_heads)
        kv_at = slice(kv * d, (kv + 1) * d)
        qh, kh = (rotate(q[:, at]), rotate(k[:, kv_at])) if rotary else (q[:, at], k[:, kv_at])
        scores = score(kind, qh, kh, w, h) + np.broadcast_to(bias, (heads, len(q), len(k)))[h]
        p = oracle.softmax(scores) * (1.0 if head_mask is None else head_mask[h])
        weights.append(p)
        contexts.append(p @ v[:, kv_at])
    out = np.concatenate(contexts, axis=1)
    return oracle.linear(out, w["out_proj.weight"], w.get("out_proj.bias")), np.array(weights)


def norm(x, w, kind, eps=1e-5):
    if kind == "layer":
        return oracle.layer_norm(x, w["weight"], w.get("bias"), eps)
    if kind == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * f64(w["weight"])
    scale = f64(w["weight"]) / np.sqrt(f64(w["running_var"]) + eps)
    return (x - f64(w["running_mean"])) * scale + f64(w["bias"])


def mixture_of_experts(x, w, activation, top_k):
    """Shazeer et al. 2017: the sum of the top_k experts' outputs, weighted by the softmax over all experts."""
    p = oracle.softmax(oracle.linear(x, w["router.weight"]))
    y = np.zeros(x.shape) + f64(w.get("bias", 0.0))
    for i, row in enumerate(p):
        for e in np.argsort(-row, kind="stable")[:top_k]:
            inner = oracle.linear(x[i : i + 1], w[f"linear1.{e}.weight"])
            out = oracle.linear(oracle.ACTIVATIONS[activation](inner), w[f"linear2.{e}.weight"])
            y[i] += row[e] * out[0]
    return y


def feed_forward(x, w, activation, gate=None):
    hidden = oracle.linear(x, w["linear1.weight"], w.get("linear1.bias"))
    if gate is None:
        hidden = oracle.ACTIVATIONS[activation](hidden)
    else:
        g = oracle.linear(x, w["linear_gate.weight"], w.get("linear_gate.bias"))
        hidden = oracle.ACTIVATIONS[gate](g) * hidden
    return oracle.linear(hidden, w["linear2.weight"], w.get("linear2.bias"))


def part(w, name):
    return {k.removeprefix(f"{name}."): v for k, v in w.items() if k.startswith(f"{name}.")}


def layer(
    x, w, heads, *, memory=None, kind="layer", norm_first=False, alpha=1.0, residual=True,
    activation="relu", gate=None, bias=0.0, memory_bias=0.0, output_norm=False, only=None,
    top_k=0,
    **attention,
):  # fmt: skip
    """An encoder layer; with a memory a decoder layer; or one sublayer, selected by its norm: (L, E) -> (L,
    E)."""

    def sublayer(x, norm_name, f):
        if only not in (None, norm_name):
            return x
        n = part(w, norm_name)
        kept = alpha * x if residual else 0.0
        out = f(norm(x, n, kind) if norm_first else x)
        if output_norm:
            inner = kept if output_norm == "residual" else 0.0
            out = norm(inner + out, part(w, f"output_{norm_name}"), kind)
        return kept + out if norm_first else norm(kept + out, n, kind)

    def attend(y, name, keys, mask):
        keys = y if keys is None else f64(keys)
        options = attention if name == "self_attn" else {}
        return multihead_attention(y, keys, keys, part(w, name), heads, bias=mask, **options)[0]

    x = sublayer(f64(x), "norm1", lambda y: attend(y, "self_attn", None, bias))
    if memory is not None:
        x = sublayer(x, "norm2", lambda y: attend(y, "multihead_attn", memory, memory_bias))
    last = "norm2" if memory is None else "norm3"
    if top_k:
        experts = part(w, "experts")
        return sublayer(x, last, lambda y: mixture_of_experts(y, experts, activation, top_k))
    return sublayer(x, last, lambda y: feed_forward(y, w, activation, gate))


def causal(length, keys=None):
    """0 where key j <= query i, else -inf."""
    return np.where(np.tri(length, keys or length, dtype=bool), 0.0, -np.inf)

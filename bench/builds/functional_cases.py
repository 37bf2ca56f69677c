"""Cases of simdformer.functional. Its calls use all threads; the number cannot be set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from builds.case import Arrays, Case, normal
from simdformer import functional as f

BATCH, HEADS, QUERIES, KEYS = 2, 4, 37, 53
SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")
DIMS = (12, 64)


def cases() -> Iterator[Case]:
    for dim in DIMS:
        for score in SCORES:
            yield _case(f"attention/{score}, {dim}", lambda s=score, e=dim: _attention(s, e))
        yield _case(f"attention/relative, {dim}", lambda e=dim: _relative(e))
        yield _case(f"attention/varlen, {dim}", lambda e=dim: _varlen(e))
    yield _case("rows", _rows)
    yield _case("positions", _positions)


def _case(name: str, run: Callable[[], Arrays]) -> Case:
    return Case(f"functional/{name}", lambda _threads: run(), threaded=False)


def _qkv(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q = normal("q", BATCH, HEADS, QUERIES, dim)
    return q, normal("k", BATCH, HEADS, KEYS, dim), normal("v", BATCH, HEADS, KEYS, dim)


def _attention(score: str, dim: int) -> Arrays:
    q, k, v = _qkv(dim)
    weight = {"bilinear": normal("w", dim, dim), "additive": normal("w", dim)}.get(score)
    options: dict[str, Any] = {"score": score, "weight": weight}
    out, weights = f.attention(q, k, v, return_weights=True, **options)
    kept = normal("kept", QUERIES, KEYS) > -1
    arrays = {
        "out": out,
        "weights": weights,
        "bool mask": f.attention(q, k, v, attn_mask=kept, **options),
        "bias": f.attention(q, k, v, attn_bias=normal("bias", QUERIES, KEYS), **options),
        "causal": f.attention(q, k, v, is_causal=True, alignment="lower_right", **options),
        "window": f.attention(q, k, v, window_size=(5, 3), **options),
        "softcap": f.attention(q, k, v, softcap=4.0, **options),
        "grouped": f.attention(q, k[:, :2], v[:, :2], enable_gqa=True, **options),
    }
    if score in ("euclidean", "additive"):
        arrays["exact"] = f.attention(q, k, v, exact=True, **options)
    return arrays


def _relative(dim: int) -> Arrays:
    q, k, v = _qkv(dim)
    bias = f.alibi_bias(HEADS, QUERIES, KEYS)
    buckets = f.t5_relative_bias(normal("table", 32, HEADS), QUERIES, KEYS)
    return {
        "alibi": f.attention(q, k, v, relative_bias=bias),
        "t5": f.attention(q, k, v, relative_bias=buckets),
        "shaw": f.shaw_attention(q, k, v, normal("keys", 15, dim), normal("values", 15, dim)),
        "xl": f.transformer_xl_attention(
            q,
            k,
            v,
            normal("u", HEADS, dim),
            normal("w", HEADS, dim),
            normal("r", 2 * KEYS - 1, dim),
        ),
        "deberta": f.deberta_attention(
            q, k, v, normal("pk", 128, dim), normal("pq", 128, dim), max_relative_positions=64
        ),
    }


def _varlen(dim: int) -> Arrays:
    cu_q, cu_k = np.cumsum([0, 5, 1, 30, 12]), np.cumsum([0, 9, 40, 30, 3])
    q = normal("q", cu_q[-1], HEADS, dim)
    k, v = normal("k", cu_k[-1], 2, dim), normal("v", cu_k[-1], 2, dim)
    slopes = f.alibi_slopes(HEADS)
    out, weights = f.varlen_attention(q, k, v, cu_q, cu_k, return_attn_probs=True)
    return {
        "out": out,
        "weights": weights,
        "causal": f.varlen_attention(q, k, v, cu_q, cu_k, causal=True),
        "alibi": f.varlen_attention(q, k, v, cu_q, cu_k, alibi_slopes=slopes, softcap=9.0),
    }


def _rows() -> Arrays:
    x = normal("x", 45, 130)
    weight, bias = normal("weight", 130), normal("bias", 130)
    elementwise = (f.relu, f.gelu, f.silu, f.quick_gelu, f.sigmoid, f.tanh)
    gated = (f.glu, f.geglu, f.swiglu, f.reglu)
    return {
        **{function.__name__: function(3 * x) for function in elementwise},
        **{function.__name__: function(x) for function in gated},
        "softmax": f.softmax(x),
        "linear": f.linear(x, normal("matrix", 77, 130), normal("added", 77)),
        "layer_norm": f.layer_norm(x, 130, weight, bias),
        "rms_norm": f.rms_norm(x, 130, weight),
        "batch_norm": f.batch_norm(x, bias, np.abs(weight) + 1, weight, bias),
    }


def _positions() -> Arrays:
    x = normal("x", 2, 4, 200, 32)
    angles = np.arange(200)[:, None] * f.rotary_frequencies(32)[0]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return {
        "sinusoids": f.sinusoidal_position_encoding(np.arange(200), 64),
        "rotary": f.rotary_embedding(x),
        "interleaved": f.rotary_embedding(x, interleaved=True, rotary_dim=16),
        "given": f.apply_rotary_embedding(x, cos, sin),
    }

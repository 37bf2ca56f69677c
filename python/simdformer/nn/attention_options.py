# SPDX-License-Identifier: Apache-2.0
"""The options that torch's attention lacks: their names, their checks, what they mean natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from simdformer.nn.module import Float32

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention
    from simdformer.nn.positions import Position

SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")


class AttentionOptions(TypedDict, total=False):
    """Keyword arguments of MultiheadAttention beyond torch's, which layers hand on to it."""

    num_kv_heads: int | None
    score: str
    scale: float | None
    softcap: float
    tie_qk: bool
    position: Position | None
    masked_row: str


def check_options(attention: MultiheadAttention, position: Position | None) -> None:
    """ValueError for options that cannot be, or not together."""
    embed_dim, heads, kv_heads = attention.embed_dim, attention.num_heads, attention.num_kv_heads
    if embed_dim % heads:
        raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {heads}")
    if heads % kv_heads:
        raise ValueError(f"num_heads {heads} is not a multiple of num_kv_heads {kv_heads}")
    if attention.score not in SCORES:
        raise ValueError(f"unknown score {attention.score!r}; known: {', '.join(SCORES)}")
    if attention.masked_row not in ("zero", "nan"):
        raise ValueError(f"masked_row must be 'zero' or 'nan', got {attention.masked_row!r}")
    if attention.tie_qk and (attention.kdim != embed_dim or kv_heads != heads):
        raise ValueError("tie_qk needs keys of embed_dim features and num_heads heads")
    if position is not None:
        position.check_heads(heads, attention.head_dim)


def check_dropout(dropout: float) -> None:
    """torch's dropout, which inference leaves out."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be in [0, 1], got {dropout}")


def native_options(attention: MultiheadAttention) -> dict[str, Any]:
    """Keyword arguments of _core.MultiheadAttention."""
    options: dict[str, Any] = {
        "num_heads": attention.num_heads,
        "num_kv_heads": attention.num_kv_heads,
        "softcap": attention.softcap,
        "masked_value": float("nan") if attention.masked_row == "nan" else 0.0,
        "normalize": attention.score == "cosine",
        "add_zero_attn": attention.add_zero_attn,
        "softmax_scale": 1.0 if attention.scale is None else attention.scale,
    }
    if attention.score in ("scaled_dot", "euclidean") and attention.scale is None:
        options["softmax_scale"] = 1.0 / attention.head_dim**0.5
    if attention.score == "euclidean":
        # -s |q - k|^2 = 2 s (q.k - |k|^2 / 2) - s |q|^2, whose last term no softmax sees.
        options["softmax_scale"] *= 2.0
        options["key_norm_bias"] = True
    if attention.score == "additive":
        options.update(score="additive", additive_weight=attention.additive_weight)
    if attention.bias_k is not None:
        options.update(bias_k=attention.bias_k.reshape(-1), bias_v=attention.bias_v.reshape(-1))
    return options


def fold_bilinear(
    weight: Float32, query_weight: Float32, query_bias: Float32 | None
) -> tuple[Float32, Float32 | None]:
    """q^T W k = (W^T q)^T k: W (heads, head_dim, head_dim) goes into the query projection, once, in
    float64.
    """
    w = weight.astype(np.float64)
    count, head_dim = w.shape[:2]
    rows = query_weight.astype(np.float64).reshape(count, head_dim, -1)
    folded = np.einsum("hij,hie->hje", w, rows).reshape(query_weight.shape).astype(np.float32)
    if query_bias is None:
        return folded, None
    bias = query_bias.astype(np.float64).reshape(count, head_dim)
    return folded, np.einsum("hij,hi->hj", w, bias).reshape(-1).astype(np.float32)

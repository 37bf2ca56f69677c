# SPDX-License-Identifier: Apache-2.0
"""The options that torch's attention lacks: their names, their checks, what they mean natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from simdformer.functional.call import Window
from simdformer.nn.module import Float32, Module
from simdformer.nn.norms import LayerNorm, RMSNorm

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention
    from simdformer.nn.attention_positions import Position

LARGEST_LOGIT_SCALE = 100.0  # Swin Transformer V2, Liu et al. 2022
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
    window_size: tuple[int, int]
    qk_norm: Module | None
    logit_scale: bool


def check_options(
    attention: MultiheadAttention,
    position: Position | None,
    qk_norm: Module | None,
    logit_scale: bool,
) -> None:
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
        position.check_attention(attention)
    Window.of(False, attention.window_size, "upper_left")
    if qk_norm is not None:
        _check_qk_norm(attention, qk_norm)
    if logit_scale and attention.scale is not None:
        raise ValueError("scale and logit_scale exclude each other: give one of them")
    if logit_scale and attention.score == "euclidean" and kv_heads != heads:
        raise ValueError("logit_scale of score 'euclidean' needs num_kv_heads equal to num_heads")


def _check_qk_norm(attention: MultiheadAttention, norm: Module) -> None:
    if not isinstance(norm, (LayerNorm, RMSNorm)):
        raise TypeError(f"qk_norm must be a LayerNorm or RMSNorm, got {type(norm).__name__}")
    if norm.normalized_shape != (attention.head_dim,):
        raise ValueError(
            f"qk_norm must be of head_dim={attention.head_dim} features, got"
            f" {norm.normalized_shape}"
        )
    if attention.score == "bilinear":
        raise ValueError("qk_norm and score 'bilinear' exclude each other")


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
        "window": attention.window_size,
        **_scales(attention),
    }
    if attention.q_norm is not None and attention.k_norm is not None:
        options["query_norm"] = attention.q_norm._native()
        options["key_norm"] = attention.k_norm._native()
    if attention.score == "euclidean":
        options["key_norm_bias"] = True
    if attention.score == "additive":
        options.update(score="additive", additive_weight=attention.additive_weight)
    if attention.bias_k is not None:
        options.update(bias_k=attention.bias_k.reshape(-1), bias_v=attention.bias_v.reshape(-1))
    return options


def _scales(attention: MultiheadAttention) -> dict[str, Any]:
    """What the scores are multiplied by, one number or one a head."""
    # -s |q - k|^2 = 2 s (q.k - |k|^2 / 2) - s |q|^2, whose last term no softmax sees.
    factor = 2.0 if attention.score == "euclidean" else 1.0
    if attention.logit_scale is not None:
        logs = np.minimum(attention.logit_scale.astype(np.float64), np.log(LARGEST_LOGIT_SCALE))
        return {
            "softmax_scale": 1.0,
            "head_scales": (factor * np.exp(logs)).astype(np.float32),
        }
    scale = attention.scale
    if scale is None:
        terms = 1 if attention.position is None else attention.position.terms
        by_dim = attention.score in ("scaled_dot", "euclidean")
        scale = 1.0 / (terms * attention.head_dim) ** 0.5 if by_dim else 1.0
    return {"softmax_scale": factor * scale}


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

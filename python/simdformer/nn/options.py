# SPDX-License-Identifier: Apache-2.0
"""The options of attention beyond torch's: their names, checks, and the arguments of the native call."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from simdformer.functional.call import MASKED_ROWS, Window
from simdformer.nn.heads import Heads
from simdformer.nn.module import Float32, Module
from simdformer.nn.norms import LayerNorm, RMSNorm
from simdformer.nn.position import Position

LARGEST_LOGIT_SCALE = 100.0  # Swin Transformer V2, Liu et al. 2022
SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")


class AttentionOptions(TypedDict, total=False):
    """The keyword arguments of MultiheadAttention beyond torch's. Layers pass them on."""

    num_kv_heads: int | None
    head_dim: int | None
    score: str
    scale: float | None
    softcap: float
    tie_qk: bool
    position: Position | None
    masked_row: str
    window_size: tuple[int, int]
    qk_norm: Module | None
    logit_scale: bool


def check_heads(heads: Heads, *, tie_qk: bool) -> None:
    """ValueError for an invalid number of heads."""
    if heads.num_heads % heads.num_kv_heads:
        raise ValueError(
            f"num_heads {heads.num_heads} is not a multiple of num_kv_heads {heads.num_kv_heads}"
        )
    if heads.score not in SCORES:
        raise ValueError(f"unknown score {heads.score!r}; known: {', '.join(SCORES)}")
    if tie_qk and (heads.kdim != heads.embed_dim or heads.num_kv_heads != heads.num_heads):
        raise ValueError("tie_qk needs keys of embed_dim features and num_heads heads")


def check_rows(masked_row: str, window_size: tuple[int, int]) -> None:
    """ValueError for invalid values of masked_row and window_size."""
    if masked_row not in MASKED_ROWS:
        raise ValueError(f"masked_row must be 'zero' or 'nan', got {masked_row!r}")
    Window.of(False, window_size, "upper_left")


def check_qk_norm(heads: Heads, norm: Module) -> None:
    """TypeError or ValueError unless it is a norm with head_dim features, or those of all heads."""
    if not isinstance(norm, (LayerNorm, RMSNorm)):
        raise TypeError(f"qk_norm must be a LayerNorm or RMSNorm, got {type(norm).__name__}")
    (size,) = norm.normalized_shape if len(norm.normalized_shape) == 1 else (0,)
    together = heads.num_built * heads.head_dim if heads.num_kv_heads == heads.num_heads else 0
    if size not in (heads.head_dim, together):
        raise ValueError(
            f"qk_norm must have head_dim={heads.head_dim} features, or of all heads'"
            f" {heads.num_built * heads.head_dim} with as many heads of keys, got"
            f" {norm.normalized_shape}"
        )
    if heads.score == "bilinear":
        raise ValueError("qk_norm and score 'bilinear' are mutually exclusive")


def check_logit_scale(heads: Heads, scale: float | None) -> None:
    """ValueError for options that cannot be combined with a learned scale."""
    if scale is not None:
        raise ValueError("scale and logit_scale are mutually exclusive: pass one of them")
    if heads.score == "euclidean" and heads.num_kv_heads != heads.num_heads:
        raise ValueError("logit_scale of score 'euclidean' needs num_kv_heads equal to num_heads")


def check_dropout(dropout: float) -> None:
    """Check torch's dropout, which has no effect in inference."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be in [0, 1], got {dropout}")


def native_scales(
    heads: Heads, scale: float | None, logit_scale: Float32 | None, terms: int
) -> dict[str, Any]:
    """The factors of the scores for _core.MultiheadAttention: one number, or one per head.

    terms: the number of terms of equal size in a score.
    """
    # -s |q - k|^2 = 2 s (q.k - |k|^2 / 2) - s |q|^2; softmax does not depend on the last term.
    factor = 2.0 if heads.score == "euclidean" else 1.0
    if logit_scale is not None:
        logs = np.minimum(logit_scale.astype(np.float64), np.log(LARGEST_LOGIT_SCALE))
        return {
            "softmax_scale": 1.0,
            "head_scales": (factor * np.exp(logs)).astype(np.float32),
        }
    if scale is None:
        by_dim = heads.score in ("scaled_dot", "euclidean")
        scale = 1.0 / (terms * heads.head_dim) ** 0.5 if by_dim else 1.0
    return {"softmax_scale": factor * scale}

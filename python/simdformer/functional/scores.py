# SPDX-License-Identifier: Apache-2.0
"""Converts each kind of score to options of the native call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simdformer.functional.arrays import Float32, float32, one_of, vector
from simdformer.functional.call import AttentionCall

SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")
WEIGHTS = ("weight", "query_weight", "key_weight", "bias")
# The weights that a score does not accept.
REFUSED = {**dict.fromkeys(SCORES, WEIGHTS), "bilinear": WEIGHTS[1:], "additive": ()}


class Scoring(NamedTuple):
    """A score with its scale and weights: the arguments of `attention` with these names."""

    score: str
    scale: Any
    weight: Any
    query_weight: Any
    key_weight: Any
    bias: Any
    exact: bool

    def options(self, call: AttentionCall, capped: bool) -> dict[str, Any]:
        """Check the weights and return the options of the native call."""
        score, exact = one_of("score", self.score, SCORES), self.exact
        for name in REFUSED[score]:
            if getattr(self, name) is not None:
                raise ValueError(f"score {score!r} does not accept {name}")
        by_dim = score in ("scaled_dot", "euclidean")
        halved = score == "euclidean" and not (exact or capped)
        scale = (call.default_scale if by_dim else 1.0) if self.scale is None else self.scale
        call.set_scale(scale, 2.0 if halved else 1.0)
        if score == "bilinear":
            return bilinear(call, self.weight)
        if score == "additive":
            options = additive(call, self.weight, self.query_weight, self.key_weight, self.bias)
            return {**options, "exact_tanh": exact}
        if call.query_dim != call.key_dim:
            raise ValueError(
                f"query has {call.query_dim} columns, key has {call.key_dim}: "
                f"score {score!r} needs equal ones"
            )
        if score == "euclidean":
            return {"key_norms": True} if halved else {"score": "squared_distance"}
        return {"normalize": True} if score == "cosine" else {}


def bilinear(call: AttentionCall, weight: Any) -> dict[str, Any]:
    """q^T W k = (W^T q) . k"""
    if weight is None:
        raise ValueError("score 'bilinear' needs weight of shape (E_query, E_key)")
    matrix = per_head("weight", weight, call.heads, (call.query_dim, call.key_dim))
    return {"query_projection": np.ascontiguousarray(matrix.swapaxes(1, 2))}


def additive(
    call: AttentionCall, weight: Any, query_weight: Any, key_weight: Any, bias: Any
) -> dict[str, Any]:
    if (query_weight is None) != (key_weight is None):
        raise ValueError("query_weight and key_weight must be given together")
    options: dict[str, Any] = {"score": "additive"}
    units = call.query_dim
    if query_weight is not None:
        units = float32("query_weight", query_weight, min_ndim=2).shape[-2]
        kv_heads = call.key.shape[1]
        options["query_projection"] = per_head(
            "query_weight", query_weight, call.heads, (units, call.query_dim)
        )
        options["key_projection"] = per_head(
            "key_weight", key_weight, kv_heads, (units, call.key_dim)
        )
    elif call.query_dim != call.key_dim:
        raise ValueError(
            f"query has {call.query_dim} columns, key has {call.key_dim}: give query_weight, key_weight"
        )
    if bias is not None:
        if query_weight is None:  # tanh(q + k + b) needs an identity projection
            eye = np.eye(units, dtype=np.float32)[None]
            options["query_projection"] = options["key_projection"] = eye
        options["projection_bias"] = vector("bias", bias, units)
    ones = np.ones(units, np.float32)
    array = ones if weight is None else float32("weight", weight)
    if array.shape not in ((units,), (call.heads, units)):
        raise ValueError(
            f"weight must have shape ({units},) or ({call.heads}, {units}), got {array.shape}"
        )
    options["additive_weight"] = np.ascontiguousarray(array).reshape(1, -1, 1, units)
    return options


def per_head(name: str, weight: Any, heads: int, shape: tuple[int, int]) -> Float32:
    """A weight with or without a leading dimension of heads as (heads or 1, *shape)."""
    array = float32(name, weight)
    if array.shape not in (shape, (heads, *shape)):
        raise ValueError(f"{name} must have shape {shape} or {(heads, *shape)}, got {array.shape}")
    return np.ascontiguousarray(array if array.ndim == 3 else array[None])

# SPDX-License-Identifier: Apache-2.0
"""Leaving heads of an attention out for good."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention


def prune_heads(attention: MultiheadAttention, heads: Collection[int]) -> None:
    """Remove heads with their rows and columns of the weights; see the method of this name."""
    if attention.num_kv_heads != attention.num_heads:
        raise ValueError("heads that share keys and values (num_kv_heads) can't be pruned")
    gone = sorted(set(heads))
    if any(not 0 <= h < attention.num_heads for h in gone) or len(gone) == attention.num_heads:
        raise ValueError(
            f"heads must be some, not all, of 0 to {attention.num_heads - 1}, got {gone}"
        )
    kept = [h for h in range(attention.num_heads) if h not in gone]
    size = attention.head_dim
    columns = (np.array(kept)[:, None] * size + np.arange(size)).reshape(-1)
    triple = np.concatenate([columns + i * attention.num_heads * size for i in range(3)])
    rows = {
        **dict.fromkeys(("in_proj_weight", "in_proj_bias"), triple),
        **dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), columns),
        **dict.fromkeys(("bilinear_weight", "additive_weight", "logit_scale"), np.array(kept)),
    }
    parameters = attention._parameters
    for name, index in rows.items():
        if parameters.get(name) is not None:
            attention._register(name, parameters[name][index])
    for name in ("bias_k", "bias_v"):
        if parameters[name] is not None:
            attention._register(name, parameters[name][..., columns])
    out_proj = attention.out_proj
    out_proj._register("weight", np.ascontiguousarray(out_proj.weight[:, columns]))
    out_proj.in_features = len(columns)
    attention.num_heads = attention.num_kv_heads = len(kept)
    attention._kept_heads = tuple(attention._kept_heads[h] for h in kept)

# SPDX-License-Identifier: Apache-2.0
"""The inputs of one attention call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.nn import layout
from simdformer.nn.packed_attention import PackedAttention


class AttentionCall(NamedTuple):
    """Inputs of one native call."""

    query: layout.Sequences
    num_keys: int
    appended: layout.AppendedKeys | None
    masks: _core.Masks
    arguments: tuple[Any, ...]


def checked_call(
    attention: PackedAttention,
    query: Any,
    key: Any,
    value: Any,
    cu_seqlens: Any,
    cu_seqlens_k: Any,
    key_padding_mask: Any,
    attn_mask: Any,
) -> AttentionCall:
    """Check the inputs of a call and convert them to arguments of the native call."""
    cu_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
    q = layout.sequences("query", query, attention.embed_dim, attention.batch_first, cu_seqlens)
    cu_name = "cu_seqlens" if cu_seqlens_k is None else "cu_seqlens_k"
    k = layout.sequences("key", key, attention.kdim, attention.batch_first, cu_k, cu_name)
    v = k
    if value is not key:
        v = layout.sequences("value", value, attention.vdim, attention.batch_first, cu_k, cu_name)
    if k.batch != q.batch or v.batch != q.batch:
        raise ValueError(
            f"query, key and value must have the same number of sequences, got {q.batch}, {k.batch} and"
            f" {v.batch}"
        )
    if not np.array_equal(k.cu_seqlens, v.cu_seqlens):
        raise ValueError(f"key has {k.length} rows per sequence, value has {v.length}")
    padding = layout.key_padding("key_padding_mask", key_padding_mask, k)
    pairs = layout.attention_pairs("attn_mask", attn_mask, q, k, attention.num_heads)
    appended, lengths = None, padding.lengths
    if attention.num_extra_keys:
        appended = layout.appended_keys(padding, k, attention.num_extra_keys)
        lengths = appended.lengths
        masks = appended.masks(padding, pairs, (q.length, k.length))
    else:
        masks = layout.native_masks(padding, pairs)
    cu = k.cu_seqlens if lengths is None else layout.cumulative(lengths)
    return AttentionCall(
        query=q,
        num_keys=k.length + attention.num_extra_keys,
        appended=appended,
        masks=masks,
        arguments=(q.view, k.view, v.view, q.cu_seqlens, cu),
    )

# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention with torch.nn's arguments and names, and the options that torch lacks."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn import layout, packing
from simdformer.nn import options as given
from simdformer.nn.linear import Linear
from simdformer.nn.module import Float32, Module, check_placement
from simdformer.nn.packed_attention import PackedAttention
from simdformer.nn.parameters import indexed
from simdformer.nn.position import Position
from simdformer.nn.pruning import kept_features, kept_parts


class _Call(NamedTuple):
    """Inputs of one call, as the native one takes them."""

    query: layout.Sequences
    num_keys: int
    appended: layout.AppendedKeys | None
    masks: _core.Masks
    arguments: tuple[Any, ...]


class MultiheadAttention(PackedAttention):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), as torch.nn.MultiheadAttention.

    Arguments up to `dtype` are torch's; dropout is accepted and does nothing, as in eval mode.

    num_kv_heads: heads of keys and values, each read by num_heads / num_kv_heads query heads
        (Ainslie et al. 2023); None for num_heads.
    head_dim: features of each head; None for embed_dim / num_heads.
    score: how a query and a key are compared, head by head:
        "scaled_dot"  q.k / sqrt(head_dim)
        "dot"         q.k                                       (Luong et al. 2015)
        "bilinear"    q^T W k                                   (Luong et al. 2015, "general")
        "euclidean"   -|q - k|^2 / sqrt(head_dim)               (Kim et al. 2021)
        "cosine"      q.k / (|q| |k|)
        "additive"    w.tanh(q + k), q and k projected          (Bahdanau et al. 2015)
        Parameters beyond torch's: bilinear_weight (num_heads, head_dim, head_dim) for "bilinear",
        additive_weight (num_heads, head_dim) for "additive".
    scale: what the score is multiplied by, instead of 1 / sqrt(head_dim) or 1.
    softcap: scores become softcap tanh(score / softcap), if > 0.
    tie_qk: keys are projected as queries are; the key rows of in_proj_weight are not used.
    position: a RotaryEmbedding, ALiBi, RelativePositionBias, ShawRelativePosition,
        TransformerXLRelativePosition or DisentangledRelativePosition.
    masked_row: a query without a key gives zeros ("zero") or NaN ("nan", as torch.nn).
    window_size: (left, right): query i sees keys i - left .. i + right; -1 for no limit.
    qk_norm: a LayerNorm or RMSNorm of head_dim features, of which each head's queries and keys pass
        through a copy, q_norm and k_norm, before they are rotated (Henry et al. 2020); or of
        num_heads * head_dim features, of all heads' together.
    logit_scale: scores are multiplied by exp(logit_scale), a parameter (num_heads), at most by 100,
        instead of scale (Liu et al. 2022, Swin V2, with score "cosine").

    Parameters: in_proj_weight (3 E, E), or q_proj_weight, k_proj_weight (E, kdim) and v_proj_weight
    (E, vdim) if kdim or vdim differ from E; in_proj_bias (3 E); bias_k, bias_v (1, 1, E);
    out_proj.weight, out_proj.bias. With head_dim or num_kv_heads, num_heads * head_dim rows of
    queries, and num_kv_heads * head_dim of keys and of values, stand for the E rows.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: object = None,
        dtype: object = None,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        score: str = "scaled_dot",
        scale: float | None = None,
        softcap: float = 0.0,
        tie_qk: bool = False,
        position: Position | None = None,
        masked_row: str = "zero",
        window_size: tuple[int, int] = (-1, -1),
        qk_norm: Module | None = None,
        logit_scale: bool = False,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        given.check_dropout(dropout)
        self.embed_dim = positive_int("embed_dim", embed_dim)
        self.num_heads = positive_int("num_heads", num_heads)
        self.head_dim = _head_dim(embed_dim, num_heads, head_dim)
        self.num_kv_heads = positive_int(
            "num_kv_heads", num_heads if num_kv_heads is None else num_kv_heads
        )
        self.kdim = embed_dim if kdim is None else positive_int("kdim", kdim)
        self.vdim = embed_dim if vdim is None else positive_int("vdim", vdim)
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.score = score
        self.scale = scale
        self.softcap = softcap
        self.tie_qk = tie_qk
        self.masked_row = masked_row
        self.window_size = window_size
        self._num_built = num_heads
        self._kept_heads = tuple(range(num_heads))  # positions know heads by their first numbers
        self.q_norm, self.k_norm = copy.deepcopy(qk_norm), copy.deepcopy(qk_norm)
        self.position = position
        self._register("logit_scale", init.full(np.log(10.0), num_heads) if logit_scale else None)
        self._check_options()
        self._create_parameters(bias, add_bias_kv)

    def _create_parameters(self, bias: bool, add_bias_kv: bool) -> None:
        e, inner, kv = self.embed_dim, self.heads.query_dim, self.heads.key_dim
        if self.kdim == e and self.vdim == e:
            self._register("in_proj_weight", init.xavier_uniform(inner + 2 * kv, e))
        else:
            self._register("q_proj_weight", init.xavier_uniform(inner, e))
            self._register("k_proj_weight", init.xavier_uniform(kv, self.kdim))
            self._register("v_proj_weight", init.xavier_uniform(kv, self.vdim))
        self._register("in_proj_bias", init.zeros(inner + 2 * kv) if bias else None)
        self._register("bias_k", init.xavier_normal(1, 1, kv) if add_bias_kv else None)
        self._register("bias_v", init.xavier_normal(1, 1, kv) if add_bias_kv else None)
        shape = (self.num_heads, self.head_dim)
        if self.score == "bilinear":
            self._register("bilinear_weight", init.identities(*shape))
        if self.score == "additive":
            self._register("additive_weight", init.uniform(self.head_dim**-0.5, *shape))
        self.out_proj = Linear(inner, e, bias=bias)
        if bias:
            self.out_proj.bias = init.zeros(e)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        head_mask: Any = None,
        cu_seqlens: Any = None,
        cu_seqlens_k: Any = None,
        num_threads: int = 0,
    ) -> tuple[Float32, Float32 | None]:
        """Attention of queries to keys and values.

        query: float32 (L, N, E), or (N, L, E) if batch_first, or (L, E), or packed (total, E) with
            cu_seqlens; key, value: likewise with S rows of kdim and vdim features (cu_seqlens_k).
        key_padding_mask: bool (N, S), True = ignore, or float32, added to the scores.
        attn_mask: bool (L, S) or (N * num_heads, L, S), True = ignore, or float32, added.
        is_causal: a hint that attn_mask is the causal mask; the mask itself is what counts.
        head_mask: float32 (num_heads,) or (N, num_heads), factors of the heads' outputs.

        Returns: the output, laid out as query, and the weights, (N, L, S) averaged over heads or
        (N, num_heads, L, S), or None. S counts the keys of add_bias_kv and add_zero_attn too.
        """
        layout.check_hint("is_causal", is_causal, "attn_mask", attn_mask)
        call = self._call(query, key, value, cu_seqlens, cu_seqlens_k, key_padding_mask, attn_mask)
        q = call.query
        weights = None
        if need_weights:
            shape = (q.batch, self.num_heads, q.length, call.num_keys)
            weights = np.zeros(shape, np.float32)
        out = self._run(call, self.embed_dim, head_mask, num_threads, weights=weights)
        if weights is None:
            return out, None
        if call.appended is not None:
            call.appended.move_last(weights)
        if average_attn_weights:
            weights = weights.mean(axis=1)
        return out, weights if q.batched else weights[0]

    def head_outputs(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        attn_mask: Any = None,
        *,
        head_mask: Any = None,
        cu_seqlens: Any = None,
        cu_seqlens_k: Any = None,
        num_threads: int = 0,
    ) -> Float32:
        """What the heads give before out_proj mixes them; arguments as of `forward`.

        Returns: float32 (..., num_heads, head_dim), laid out as query otherwise.
        """
        call = self._call(query, key, value, cu_seqlens, cu_seqlens_k, key_padding_mask, attn_mask)
        features = self.num_heads * self.head_dim
        out = self._run(call, features, head_mask, num_threads, head_outputs=True)
        return out.reshape(*out.shape[:-1], self.num_heads, self.head_dim)

    def _run(
        self, call: _Call, features: int, head_mask: Any, num_threads: int, **outputs: Any
    ) -> Float32:
        out, view = call.query.empty_output(features)
        self.native().forward(
            *call.arguments,
            view,
            masks=call.masks,
            positions=self.positions(max(call.query.length, call.num_keys)),
            head_mask=layout.head_factors(head_mask, call.query.batch, self.num_heads),
            num_threads=num_threads,
            **outputs,
        )
        return out

    def _call(
        self,
        query: Any,
        key: Any,
        value: Any,
        cu_seqlens: Any,
        cu_seqlens_k: Any,
        key_padding_mask: Any,
        attn_mask: Any,
    ) -> _Call:
        """The inputs, checked, as the native call takes them."""
        cu_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
        q = layout.sequences("query", query, self.embed_dim, self.batch_first, cu_seqlens)
        cu_name = "cu_seqlens" if cu_seqlens_k is None else "cu_seqlens_k"
        k = layout.sequences("key", key, self.kdim, self.batch_first, cu_k, cu_name)
        v = k
        if value is not key:
            v = layout.sequences("value", value, self.vdim, self.batch_first, cu_k, cu_name)
        if k.batch != q.batch or v.batch != q.batch:
            raise ValueError(
                f"query, key and value must hold as many sequences, got {q.batch}, {k.batch} and"
                f" {v.batch}"
            )
        if not np.array_equal(k.cu_seqlens, v.cu_seqlens):
            raise ValueError(f"key has {k.length} rows a sequence, value has {v.length}")
        padding = layout.key_padding("key_padding_mask", key_padding_mask, k)
        pairs = layout.attention_pairs("attn_mask", attn_mask, q, k, self.num_heads)
        appended, lengths = None, padding.lengths
        if self.num_extra_keys:
            appended = layout.appended_keys(padding, k, self.num_extra_keys)
            lengths = appended.lengths
            masks = appended.masks(padding, pairs, (q.length, k.length))
        else:
            masks = layout.native_masks(padding, pairs)
        cu = k.cu_seqlens if lengths is None else layout.cumulative(lengths)
        return _Call(
            query=q,
            num_keys=k.length + self.num_extra_keys,
            appended=appended,
            masks=masks,
            arguments=(q.view, k.view, v.view, q.cu_seqlens, cu),
        )

    def prune_heads(self, heads: Collection[int]) -> None:
        """Remove heads, by their present numbers, with their rows and columns of the weights.

        Heads that head_mask would set to 0: the output is the same without computing them (Michel,
        Levy and Neubig 2019). ValueError for numbers out of range, for all heads, or with
        num_kv_heads.
        """
        before = self.heads
        after = before.without(heads)
        if "int8" in self._types():
            raise ValueError("heads of an attention in int8 can't be left out; do it before")
        if self.q_norm is not None and self.q_norm.normalized_shape != (self.head_dim,):
            raise ValueError("heads can't be left out where qk_norm is of all heads' features")
        with packing.lock():
            self.out_proj.keep_inputs(kept_features(before, heads))
            for name, index in kept_parts(before, heads):
                if self.has(name):
                    self._place(name, indexed(self._parameters[name], index))
            self._kept_heads = after.kept
            self.num_heads = self.num_kv_heads = after.num_heads


def _head_dim(embed_dim: int, num_heads: int, head_dim: int | None) -> int:
    if head_dim is not None:
        return positive_int("head_dim", head_dim)
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
    return embed_dim // num_heads

# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention with torch.nn's arguments and names, and the options that torch lacks."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np

from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn import layout, packing
from simdformer.nn import options as given
from simdformer.nn.attention_call import AttentionCall, checked_call
from simdformer.nn.linear import Linear
from simdformer.nn.module import Float32, Module, check_placement
from simdformer.nn.packed_attention import PackedAttention
from simdformer.nn.parameters import indexed
from simdformer.nn.position import Position
from simdformer.nn.pruning import kept_features, kept_parts


class MultiheadAttention(PackedAttention):
    """Multi-head attention, as torch.nn.MultiheadAttention with further options.

    Parameters
    ----------
    embed_dim, num_heads, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first
        As in torch.
    dropout, device, dtype
        As in torch, without effect: dropout is not applied in inference, device must be the CPU, dtype
        float32.
    num_kv_heads
        Heads of keys and values, each used by num_heads / num_kv_heads query heads (Ainslie et al.
        2023). None means num_heads.
    head_dim
        Features of each head. None means embed_dim / num_heads.
    score
        "scaled_dot", "dot", "bilinear", "euclidean", "cosine" or "additive"; see
        `simdformer.functional.attention` for the formulas.
    scale
        Factor of the score. None means 1 / sqrt(head_dim) ("scaled_dot", "euclidean") or 1.
    softcap
        Replace a score s by softcap tanh(s / softcap), if > 0.
    tie_qk
        Project keys with the weights of queries. The rows of in_proj_weight for keys are not used.
    position
        RotaryEmbedding, ALiBi, RelativePositionBias, ShawRelativePosition,
        TransformerXLRelativePosition or DisentangledRelativePosition.
    masked_row
        A query without a key gives zeros ("zero") or NaN ("nan", as in torch).
    window_size
        (left, right): query i sees keys i - left to i + right. -1 means no limit.
    qk_norm
        LayerNorm or RMSNorm of head_dim features. Copies of it, q_norm and k_norm, are applied to the
        queries and keys of each head before rotation (Henry et al. 2020). With num_heads * head_dim
        features they are applied to all heads together.
    logit_scale
        Multiply scores by exp(logit_scale), at most 100, instead of scale. logit_scale becomes a
        parameter (num_heads,) (Liu et al. 2022, Swin V2, with score "cosine").

    Attributes
    ----------
    in_proj_weight, in_proj_bias
        float32 (3 E, E) and (3 E,): queries, keys and values. With head_dim or num_kv_heads, the
        features of all heads stand for E.
    q_proj_weight, k_proj_weight, v_proj_weight
        float32 (E, E), (E, kdim) and (E, vdim), instead of in_proj_weight if kdim or vdim is not E.
    bias_k, bias_v
        float32 (1, 1, E) with add_bias_kv.
    out_proj
        Linear with weight (E, E).
    bilinear_weight, additive_weight
        float32 (num_heads, head_dim, head_dim) and (num_heads, head_dim), for these scores.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 3.2.2.

    Examples
    --------
    >>> from simdformer import nn
    >>> x = np.ones((5, 1, 8), dtype=np.float32)  # (L, N, E)
    >>> output, weights = nn.MultiheadAttention(8, num_heads=2)(x, x, x)
    >>> output.shape, weights.shape
    ((5, 1, 8), (1, 5, 5))
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
        self._kept_heads = tuple(range(num_heads))  # positions use the indices before pruning
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
        """Compute the attention of queries to keys and values.

        Parameters
        ----------
        query, key, value
            float32 (L, N, E), (N, L, E) if batch_first, (L, E), or packed (total, E) with cu_seqlens. Keys
            and values have S rows of kdim and vdim features.
        key_padding_mask
            bool (N, S), True = ignore, or float32, added to the scores.
        need_weights, average_attn_weights
            Whether to return the weights, and whether to average them over heads.
        attn_mask
            bool (L, S) or (N * num_heads, L, S), True = ignore, or float32, added to the scores.
        is_causal
            A hint that attn_mask is the causal mask. The result depends on the mask only.
        head_mask
            float32 (num_heads,) or (N, num_heads), factors of the heads' outputs.
        cu_seqlens, cu_seqlens_k
            Integers (batch + 1,), offsets of the sequences in packed queries and keys.
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        output : float32
            The layout of query.
        weights : float32 or None
            (N, L, S), or (N, num_heads, L, S) if not averaged. S includes the keys of add_bias_kv and
            add_zero_attn.
        """
        layout.check_hint("is_causal", is_causal, "attn_mask", attn_mask)
        call = checked_call(
            self, query, key, value, cu_seqlens, cu_seqlens_k, key_padding_mask, attn_mask
        )
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
        """Return float32 (..., num_heads, head_dim), laid out as query: the heads' outputs before out_proj.

        The arguments are those of `forward`.
        """
        call = checked_call(
            self, query, key, value, cu_seqlens, cu_seqlens_k, key_padding_mask, attn_mask
        )
        features = self.num_heads * self.head_dim
        out = self._run(call, features, head_mask, num_threads, head_outputs=True)
        return out.reshape(*out.shape[:-1], self.num_heads, self.head_dim)

    def _run(
        self, call: AttentionCall, features: int, head_mask: Any, num_threads: int, **outputs: Any
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

    def prune_heads(self, heads: Collection[int]) -> None:
        """Remove heads and their rows and columns of the weights.

        The output is the same as with head_mask 0 for these heads, without computing them (Michel, Levy
        and Neubig 2019).

        Parameters
        ----------
        heads
            Indices of the heads to remove, as they are numbered now.

        Raises
        ------
        ValueError
            For indices out of range, for all heads, with num_kv_heads, or in int8.
        """
        before = self.heads
        after = before.without(heads)
        if "int8" in self._types():
            raise ValueError("heads cannot be pruned in int8; prune them before the conversion")
        if self.q_norm is not None and self.q_norm.normalized_shape != (self.head_dim,):
            raise ValueError("heads cannot be pruned if qk_norm is over the features of all heads")
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

# SPDX-License-Identifier: Apache-2.0
"""The encoder: its layer and its stack, each call one native call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simdformer import _core
from simdformer.nn import layout
from simdformer.nn.cache import DecoderCache
from simdformer.nn.compute_types import Sample, sample_offsets, sample_rows
from simdformer.nn.layer import TransformerLayer
from simdformer.nn.module import Module
from simdformer.nn.stack import CallOptions, Masks, StackCall, TransformerStack


class TransformerEncoderLayer(TransformerLayer):
    """Self-attention and feed-forward, as torch.nn.TransformerEncoderLayer.

    Arguments up to `dtype` are torch's; dropout is accepted and does nothing, as in eval mode.

    activation: relu, gelu (the erf form), gelu_tanh, silu, quick_gelu, tanh, sigmoid, identity, the
        function or module of one in this library or torch; or
        gated, linear2(activation(linear_gate(x)) * linear1(x)): glu, bilinear, reglu, geglu,
        geglu_tanh, quick_geglu, swiglu, tanh_glu.
    norm: "layer", "rms" (Zhang and Sennrich 2019) or "batch", by running statistics.
    output_norm: True has norms of what the sublayers put out too, before it is added to the residual
        term (Gemma 2 and 3): output_norm1 and output_norm2. "residual": the term is in what they
        normalise too.
    residual: False leaves the residual connections out.
    alpha: factor of the residual term: DeepNorm's (Wang et al. 2022).
    num_kv_heads, score, scale, softcap, tie_qk, position, masked_row, window_size, qk_norm,
        logit_scale: of the self-attention, as MultiheadAttention has them; score, scale, softcap,
        masked_row, qk_norm and logit_scale of cross-attention too.
    """

    _norms = ("norm1", "norm2")

    def sample(self) -> Sample:
        """What it is quantised with if no sample is given."""
        cu = sample_offsets(self.self_attn.max_positions)
        return Sample((sample_rows(self.d_model, cu),), {"cu_seqlens": cu})

    def forward(
        self,
        src: Any,
        src_mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool = False,
        *,
        cu_seqlens: Any = None,
        head_mask: Any = None,
        need_weights: bool = False,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Any:
        """One layer; arguments and result as of TransformerEncoder.forward."""
        layout.check_hint("is_causal", is_causal, "src_mask", src_mask)
        options = CallOptions(
            None if head_mask is None else [head_mask], need_weights, cache, num_threads
        )
        masks = Masks(src_mask, src_key_padding_mask, cu_seqlens, "src_mask")
        return _encode(self.stack(), [self], src, masks, options)


class TransformerEncoder(TransformerStack):
    """A stack of encoder layers, as torch.nn.TransformerEncoder.

    encoder_layer is copied num_layers times; several layers take turns, as ModernBERT's global and
    local attention do: [global, local, local] gives layers 0, 3, 6, ... the first. enable_nested_tensor and mask_check are accepted and do
    nothing: padding is always taken out.
    """

    _layer = TransformerEncoderLayer

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer | Sequence[TransformerEncoderLayer],
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,  # noqa: ARG002  (torch's)
        mask_check: bool = True,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self._build(encoder_layer, num_layers, norm)

    def forward(
        self,
        src: Any,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
        *,
        cu_seqlens: Any = None,
        head_mask: Any = None,
        need_weights: bool = False,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Any:
        """All layers.

        src: float32 (S, N, E), or (N, S, E) if batch_first, or (S, E), or packed (total, E) with
            cu_seqlens.
        mask: bool (S, S) or (N * nhead, S, S), True = ignore, or float32, added to the scores.
        src_key_padding_mask: bool (N, S), True = ignore, or float32, added.
        is_causal: a hint that mask is causal; the mask itself is what counts.
        head_mask: float32 factors of the heads' outputs, one entry a layer, (nhead,) or (N, nhead)
            or None.
        need_weights: also return the attention weights, a list of (N, nhead, S, S).
        cache: keys and values of the tokens before src, to which src's are added. Attention is then
            causal, and mask must be None.

        Returns: float32, laid out as src, 0 where a token is padding; with need_weights a pair.
        """
        layout.check_hint("is_causal", is_causal, "mask", mask)
        options = CallOptions(head_mask, need_weights, cache, num_threads)
        masks = Masks(mask, src_key_padding_mask, cu_seqlens, "mask")
        return _encode(self.native(), list(self.layers), src, masks, options)


def _encode(
    stack: _core.TransformerStack,
    layers: Sequence[TransformerLayer],
    src: Any,
    masks: Masks,
    options: CallOptions,
) -> Any:
    call = StackCall(layers, "src", src, masks, options)
    out = call.run(stack)
    return (out, call.arguments["self_weights"]) if options.need_weights else out

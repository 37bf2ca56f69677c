# SPDX-License-Identifier: Apache-2.0
"""The decoder: its layer and its stack, each call one native call."""

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


class TransformerDecoderLayer(TransformerLayer):
    """Self-attention, attention to a memory, feed-forward, as torch.nn.TransformerDecoderLayer.

    Arguments as of TransformerEncoderLayer; num_kv_heads, tie_qk, position and window_size are those
    of self-attention.
    """

    _norms = ("norm1", "norm2", "norm3")

    def sample(self) -> Sample:
        """What it is quantised with if no sample is given."""
        cu = sample_offsets(self.self_attn.max_positions)
        rows = (sample_rows(self.d_model, cu), sample_rows(self.d_model, cu, 1))
        return Sample(rows, {"cu_seqlens": cu, "memory_cu_seqlens": cu})

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cu_seqlens: Any = None,
        memory_cu_seqlens: Any = None,
        head_mask: Any = None,
        need_weights: bool = False,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Any:
        """One layer; arguments and result as of TransformerDecoder.forward."""
        layout.check_hint("tgt_is_causal", tgt_is_causal, "tgt_mask", tgt_mask)
        layout.check_hint("memory_is_causal", memory_is_causal, "memory_mask", memory_mask)
        options = CallOptions(
            None if head_mask is None else [head_mask], need_weights, cache, num_threads
        )
        masks = Masks(tgt_mask, tgt_key_padding_mask, cu_seqlens, "tgt_mask")
        memory_masks = Masks(memory_mask, memory_key_padding_mask, memory_cu_seqlens, "memory_mask")
        return _decode(self.stack(), [self], (tgt, masks), (memory, memory_masks), options)


class TransformerDecoder(TransformerStack):
    """A stack of decoder layers, as torch.nn.TransformerDecoder. decoder_layer is copied num_layers
    times; several take turns, as in TransformerEncoder.
    """

    _layer = TransformerDecoderLayer

    def __init__(
        self,
        decoder_layer: TransformerDecoderLayer | Sequence[TransformerDecoderLayer],
        num_layers: int,
        norm: Module | None = None,
    ) -> None:
        super().__init__()
        self._build(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        cu_seqlens: Any = None,
        memory_cu_seqlens: Any = None,
        head_mask: Any = None,
        need_weights: bool = False,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Any:
        """All layers.

        tgt, memory: float32 (T, N, E) and (S, N, E), or (N, .., E) if batch_first, or unbatched, or
            packed (total, E) with cu_seqlens and memory_cu_seqlens.
        tgt_mask, memory_mask: bool (T, T) and (T, S), or with N * nhead in front, True = ignore, or
            float32, added to the scores; the key padding masks likewise, (N, T) and (N, S).
        tgt_is_causal, memory_is_causal: hints that a mask is causal; the masks are what counts.
        head_mask: factors of the self-attention heads' outputs, as of TransformerEncoder.
        need_weights: also return the weights of self- and of cross-attention, two lists.
        cache: what is known of earlier tokens. tgt holds the tokens that follow, tgt_mask is None,
            attention to tgt is causal; the memory is read by the first call, later ones give None.

        Returns: float32, laid out as tgt, 0 where a token is padding; with need_weights
        (output, self weights, cross weights).
        """
        layout.check_hint("tgt_is_causal", tgt_is_causal, "tgt_mask", tgt_mask)
        layout.check_hint("memory_is_causal", memory_is_causal, "memory_mask", memory_mask)
        options = CallOptions(head_mask, need_weights, cache, num_threads)
        masks = Masks(tgt_mask, tgt_key_padding_mask, cu_seqlens, "tgt_mask")
        memory_masks = Masks(memory_mask, memory_key_padding_mask, memory_cu_seqlens, "memory_mask")
        layers = list(self.layers)
        return _decode(self.native(), layers, (tgt, masks), (memory, memory_masks), options)


def _decode(
    stack: _core.TransformerStack,
    layers: Sequence[TransformerLayer],
    target: tuple[Any, Masks],
    memory: tuple[Any, Masks],
    options: CallOptions,
) -> Any:
    tgt, masks = target
    call = StackCall(layers, "tgt", tgt, masks, options)
    memory_keys = _set_memory(call, layers[0], *memory, options.cache)
    if options.need_weights:
        call.add_weights("cross_weights", [layer.multihead_attn for layer in layers], memory_keys)
    out = call.run(stack)
    if options.need_weights:
        return out, call.arguments["self_weights"], call.arguments["cross_weights"]
    return out


def _set_memory(
    call: StackCall,
    layer: TransformerLayer,
    memory: Any,
    masks: Masks,
    cache: DecoderCache | None,
) -> int:
    """Tells the call of a memory, given or in the cache. Returns how many keys its weights have."""
    if cache is not None:
        call.arguments["cross_cache"] = cache.cross_cache
    if memory is None:
        if cache is None or cache.max_memory_length == 0:
            raise ValueError("memory must be given: no cache holds one")
        if masks.mask is not None or masks.key_padding is not None:
            raise ValueError("memory masks must be None when the memory comes from the cache")
        return cache.max_memory_length
    m = layout.sequences(
        "memory",
        memory,
        layer.d_model,
        layer.batch_first,
        masks.cu_seqlens,
        "memory_cu_seqlens",
    )
    if m.batch != call.x.batch:
        raise ValueError(
            f"tgt and memory must hold as many sequences, got {call.x.batch}, {m.batch}"
        )
    padding = layout.key_padding("memory_key_padding_mask", masks.key_padding, m)
    if cache is not None and (masks.mask is not None or padding.keep is not None):
        raise ValueError(
            "memory_mask must be None, and the memory's padding on the right, with a cache"
        )
    heads = layer.multihead_attn.num_heads
    pairs = layout.attention_pairs("memory_mask", masks.mask, call.x, m, heads)
    call.arguments["memory"] = m.view
    call.arguments["memory_cu_seqlens"] = (
        m.cu_seqlens if padding.lengths is None else layout.cumulative(padding.lengths)
    )
    call.arguments["memory_masks"] = layout.native_masks(padding, pairs)
    return m.length

# SPDX-License-Identifier: Apache-2.0
"""The decoder layer and the decoder. A call of either is one native call."""

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
    """Self-attention, attention to a memory and feed-forward, as torch.nn.TransformerDecoderLayer.

    Parameters
    ----------
    d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias
        See `TransformerEncoderLayer`.
    device, dtype, norm, output_norm, residual, alpha, experts, **attention
        See `TransformerEncoderLayer`. num_kv_heads, tie_qk, position and window_size apply to
        self-attention only.

    Examples
    --------
    >>> from simdformer import nn
    >>> layer = nn.TransformerDecoderLayer(8, nhead=2, batch_first=True)
    >>> layer(np.ones((1, 3, 8), dtype=np.float32), np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 3, 8)
    """

    _norms = ("norm1", "norm2", "norm3")

    def sample(self) -> Sample:
        """The default sample for quantization."""
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
        """Apply the layer.

        Parameters
        ----------
        tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal
            See `TransformerDecoder.forward`.
        memory_is_causal, cu_seqlens, memory_cu_seqlens, head_mask, need_weights, cache, num_threads
            See `TransformerDecoder.forward`.

        Returns
        -------
        float32 array
            See `TransformerDecoder.forward`.
        """
        layout.check_hint("tgt_is_causal", tgt_is_causal, "tgt_mask", tgt_mask)
        layout.check_hint("memory_is_causal", memory_is_causal, "memory_mask", memory_mask)
        options = CallOptions(
            None if head_mask is None else [head_mask], need_weights, cache, num_threads
        )
        masks = Masks(tgt_mask, tgt_key_padding_mask, cu_seqlens, "tgt_mask")
        memory_masks = Masks(memory_mask, memory_key_padding_mask, memory_cu_seqlens, "memory_mask")
        return _decode(self.stack(), [self], (tgt, masks), (memory, memory_masks), options)


class TransformerDecoder(TransformerStack):
    """A stack of decoder layers, as torch.nn.TransformerDecoder.

    Parameters
    ----------
    decoder_layer
        The layer, copied num_layers times. Several layers are used in turn; see `TransformerEncoder`.
    num_layers
        Number of layers.
    norm
        A norm after the last layer.

    Examples
    --------
    >>> from simdformer import nn
    >>> decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, batch_first=True), 2)
    >>> decoder(np.ones((1, 3, 8), dtype=np.float32), np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 3, 8)
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
        """Apply all layers.

        Parameters
        ----------
        tgt, memory
            float32 (T, N, E) and (S, N, E), (N, T, E) and (N, S, E) if batch_first, without N, or packed
            (total, E) with cu_seqlens and memory_cu_seqlens.
        tgt_mask, memory_mask
            bool (T, T) and (T, S), or with a leading dimension N * nhead, True = ignore, or float32, added
            to the scores.
        tgt_key_padding_mask, memory_key_padding_mask
            bool (N, T) and (N, S), True = ignore, or float32, added to the scores.
        tgt_is_causal, memory_is_causal
            Hints that a mask is causal. The result depends on the masks only.
        cu_seqlens, memory_cu_seqlens
            Integers (batch + 1,), offsets of packed sequences.
        head_mask
            Factors of the self-attention heads' outputs; see `TransformerEncoder.forward`.
        need_weights
            Also return the weights of self-attention and cross-attention, two lists.
        cache
            Keys and values of earlier tokens. tgt holds the following tokens, tgt_mask is None, and
            self-attention is causal. The first call reads the memory; later calls pass None.
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 array
            The layout of tgt, 0 at padding. With need_weights (output, self weights, cross weights).
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
    """Add the memory, from the argument or the cache, to the call. Returns the number of its keys."""
    if cache is not None:
        call.arguments["cross_cache"] = cache.cross_cache
    if memory is None:
        if cache is None or cache.max_memory_length == 0:
            raise ValueError("memory is required: the cache contains none")
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
            f"tgt and memory must have the same number of sequences, got {call.x.batch}, {m.batch}"
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

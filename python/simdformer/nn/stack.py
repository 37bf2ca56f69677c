# SPDX-License-Identifier: Apache-2.0
"""A stack of layers, and a call of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import mask_of, positive_int
from simdformer.nn import layout
from simdformer.nn.attention import MultiheadAttention
from simdformer.nn.cache import DecoderCache, check_cache
from simdformer.nn.compute_types import Sample
from simdformer.nn.containers import ModuleList
from simdformer.nn.layer import TransformerLayer
from simdformer.nn.module import Float32, Module


class TransformerStack(Module):
    """num_layers copies of a layer, or of several layers in turn, and an optional final norm."""

    _layer: type[TransformerLayer]

    def _build(self, layer: Any, num_layers: int, norm: Module | None) -> None:
        kinds = list(layer) if isinstance(layer, Sequence) else [layer]
        for kind in kinds:
            self._check_layer(kind, kinds[0])
        count = positive_int("num_layers", num_layers)
        if len(kinds) > count or not kinds:
            raise ValueError(
                f"the number of layers must be from 1 to num_layers={count}, got {len(kinds)}"
            )
        self.layers = ModuleList([copy.deepcopy(kinds[i % len(kinds)]) for i in range(count)])
        self.num_layers = count
        self.norm = norm

    def _check_layer(self, layer: Any, first: Any) -> None:
        if not isinstance(layer, self._layer):
            raise TypeError(
                f"{type(self).__name__} takes a {self._layer.__name__}, got {type(layer).__name__}"
            )
        for name in ("d_model", "nhead", "batch_first"):
            if getattr(layer, name) != getattr(first, name):
                raise ValueError(
                    f"layers must have the same {name}, got {getattr(first, name)} and"
                    f" {getattr(layer, name)}"
                )

    def sample(self) -> Sample:
        """The default sample for quantization."""
        layer: TransformerLayer = self.layers[0]
        return layer.sample()

    def _pack(self) -> _core.TransformerStack:
        norm = None if self.norm is None else self.norm.native()
        return _core.TransformerStack([layer.native() for layer in self.layers], norm)


class Masks(NamedTuple):
    """The masks of one call, as the caller gave them."""

    mask: Any
    key_padding: Any
    cu_seqlens: Any
    mask_name: str


class CallOptions(NamedTuple):
    """The options of a call."""

    head_mask: Any = None
    need_weights: bool = False
    cache: DecoderCache | None = None
    num_threads: int = 0


class StackCall:
    """One call of a stack's layers: its sequences and the arguments of the native call."""

    def __init__(
        self,
        layers: Sequence[TransformerLayer],
        name: str,
        x: Any,
        masks: Masks,
        options: CallOptions,
    ) -> None:
        self._layers = layers
        self._options = options
        self._masks = masks
        first = layers[0]
        self.x = layout.sequences(name, x, first.d_model, first.batch_first, masks.cu_seqlens)
        cache = options.cache
        check_cache(cache)
        keys = self.x.length + (0 if cache is None else cache.max_length)
        self.arguments: dict[str, Any] = {"num_threads": options.num_threads}
        if cache is not None:
            self.arguments["self_cache"] = cache.self_cache
        self._real = self._set_masks(name)
        self._set_layers(keys)
        if options.need_weights:
            self.add_weights("self_weights", [layer.self_attn for layer in layers], keys)

    def _set_masks(self, name: str) -> layout.Sequences:
        """Set the masks that lengths cannot express. Returns the sequences without their padding."""
        x, cached = self.x, self._options.cache is not None
        padding = layout.key_padding(f"{name}_key_padding_mask", self._masks.key_padding, x)
        if cached and (self._masks.mask is not None or padding.keep is not None):
            raise ValueError(
                f"{self._masks.mask_name} must be None, and padding must be on the right, with a cache"
            )
        heads = self._layers[0].self_attn.num_heads
        pairs = layout.attention_pairs(self._masks.mask_name, self._masks.mask, x, x, heads)
        if cached:
            pairs = layout.Pairs(causal=True)
        self.arguments["masks"] = layout.native_masks(padding, pairs)
        return x if padding.lengths is None else x.with_lengths(padding.lengths)

    def _set_layers(self, keys: int) -> None:
        """Set the arguments that differ between layers."""
        attentions = [layer.self_attn for layer in self._layers]
        positions = [attention.positions(keys) for attention in attentions]
        if any(given is not None for given in positions):
            self.arguments["positions"] = positions
        head_mask = self._options.head_mask
        if head_mask is None:
            return
        count = len(head_mask) if hasattr(head_mask, "__len__") else head_mask
        if count != len(attentions):
            raise ValueError(
                f"head_mask must have one entry per layer, {len(attentions)}, got {count!r}"
            )
        self.arguments["head_masks"] = [
            layout.head_factors(mask, self.x.batch, attention.num_heads)
            for mask, attention in zip(head_mask, attentions, strict=True)
        ]

    def add_weights(self, name: str, attentions: list[MultiheadAttention], keys: int) -> None:
        """Arrays that the native call fills with weights, one (N, heads, L, keys) per layer."""
        shape = (self.x.length, keys)
        self.arguments[name] = [
            np.zeros((self.x.batch, a.num_heads, *shape), np.float32) for a in attentions
        ]

    def run(self, stack: _core.TransformerStack) -> Float32:
        """Run the call. The output has the layout of the input."""
        out, view = self.x.empty_output(self._layers[0].d_model)
        stack.forward(self.x.view, self._real.cu_seqlens, view, **self.arguments)
        if self._masks.key_padding is not None and self._real is self.x:
            self._zero_padding(out)
        return out

    def _zero_padding(self, out: Float32) -> None:
        """Set rows of padding to 0. Padding that is not at the end goes through the layers."""
        array = mask_of("padding", self._masks.key_padding)
        ignore = array if array.dtype == np.bool_ else np.isneginf(array)
        if not self.x.batched:
            out[ignore.reshape(-1)] = 0.0
        else:
            out[ignore if self.x.batch_first else ignore.T] = 0.0

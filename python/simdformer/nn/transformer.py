# SPDX-License-Identifier: Apache-2.0
"""The Transformer of Vaswani et al. 2017 with torch.nn's arguments: layers, stacks, the whole.

Each call of a layer or a stack is one native call: padding is taken out on the way in and comes
back as zeros.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.arguments import positive_int
from simdformer.nn import layout
from simdformer.nn.attention import MultiheadAttention, check_dropout
from simdformer.nn.cache import DecoderCache
from simdformer.nn.linear import Linear, check_placement
from simdformer.nn.module import Float32, Module, ModuleList
from simdformer.nn.norms import make_norm
from simdformer.nn.positions import Position, position_arguments

# Gated feed-forwards (Shazeer 2020): the activation of the gate.
GATED = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "geglu_tanh": "gelu_tanh",
    "swiglu": "silu",
}


class _Layer(Module):
    """What encoder and decoder layers share. The arguments: see TransformerEncoderLayer."""

    _norms: tuple[str, ...]

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: object = None,
        dtype: object = None,
        *,
        norm: str = "layer",
        residual: bool = True,
        alpha: float = 1.0,
        num_kv_heads: int | None = None,
        score: str = "scaled_dot",
        scale: float | None = None,
        softcap: float = 0.0,
        tie_qk: bool = False,
        position: Position | None = None,
        masked_row: str = "zero",
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        check_dropout(dropout)
        self.d_model = positive_int("d_model", d_model)
        self.batch_first = batch_first
        self.norm_first = norm_first
        self.residual = residual
        self.alpha = alpha
        self.activation = _check_activation(activation)
        attention = {
            "bias": bias,
            "batch_first": batch_first,
            "score": score,
            "scale": scale,
            "softcap": softcap,
            "masked_row": masked_row,
        }
        self.self_attn = MultiheadAttention(
            d_model,
            nhead,
            num_kv_heads=num_kv_heads,
            tie_qk=tie_qk,
            position=position,
            **attention,  # type: ignore[arg-type]
        )
        if "norm3" in self._norms:
            self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)  # type: ignore[arg-type]
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias)
        if activation in GATED:
            self.linear_gate = Linear(d_model, dim_feedforward, bias=bias)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias)
        for name in self._norms:
            setattr(self, name, make_norm(norm, d_model, layer_norm_eps, bias))

    def _pack(self) -> _core.TransformerLayer:
        gated = self.activation in GATED
        cross = "norm3" in self._norms
        feed_forward = _core.FeedForward(
            self.linear1._native(),
            self.linear2._native(),
            activation=GATED[self.activation] if gated else self.activation,
            gate=self.linear_gate._native() if gated else None,
        )
        norms = [self._children[name]._native() for name in self._norms]
        return _core.TransformerLayer(
            self.self_attn._native(),
            self.multihead_attn._native() if cross else None,
            feed_forward,
            norms[0],
            norms[1] if cross else None,
            norms[-1],
            norm_first=self.norm_first,
            residual=self.residual,
            alpha=self.alpha,
        )

    def _stack(self) -> _core.TransformerStack:
        """The layer as a stack of one, kept with its packed form."""
        layer = self._native()
        kept = self.__dict__.get("_stack_of_one")
        if kept is None or kept[0] is not layer:
            kept = (layer, _core.TransformerStack([layer]))
            object.__setattr__(self, "_stack_of_one", kept)
        stack: _core.TransformerStack = kept[1]
        return stack

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_stack_of_one": None}


class TransformerEncoderLayer(_Layer):
    """Self-attention and feed-forward, as torch.nn.TransformerEncoderLayer.

    Arguments up to `dtype` are torch's; dropout is accepted and does nothing, as in eval mode.

    activation: relu, gelu (the erf form), gelu_tanh, silu, quick_gelu, tanh, sigmoid, identity, or
        gated, linear2(activation(linear_gate(x)) * linear1(x)): glu, bilinear, reglu, geglu,
        geglu_tanh, swiglu.
    norm: "layer", "rms" (Zhang and Sennrich 2019) or "batch", by running statistics.
    residual: False leaves the residual connections out.
    alpha: factor of the residual term: DeepNorm's (Wang et al. 2022).
    num_kv_heads, score, scale, softcap, tie_qk, position, masked_row: of the self-attention, as
        MultiheadAttention has them; score, scale, softcap and masked_row of cross-attention too.
    """

    _norms = ("norm1", "norm2")

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
        _check_hint("src_mask", src_mask, is_causal)
        return _encode(
            self._stack(),
            [self],
            src,
            src_mask,
            src_key_padding_mask,
            cu_seqlens,
            None if head_mask is None else [head_mask],
            need_weights,
            cache,
            num_threads,
        )


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to a memory, feed-forward, as torch.nn.TransformerDecoderLayer.

    Arguments as of TransformerEncoderLayer; num_kv_heads, tie_qk and position are those of
    self-attention.
    """

    _norms = ("norm1", "norm2", "norm3")

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
        _check_hint("tgt_mask", tgt_mask, tgt_is_causal)
        _check_hint("memory_mask", memory_mask, memory_is_causal)
        return _decode(
            self._stack(),
            [self],
            tgt,
            memory,
            (tgt_mask, tgt_key_padding_mask, cu_seqlens),
            (memory_mask, memory_key_padding_mask, memory_cu_seqlens),
            None if head_mask is None else [head_mask],
            need_weights,
            cache,
            num_threads,
        )


class _Stack(Module):
    """num_layers copies of a layer, and a last norm if there is one."""

    _layer: type[_Layer]

    def _build(self, layer: Any, num_layers: int, norm: Module | None) -> None:
        if not isinstance(layer, self._layer):
            raise TypeError(
                f"{type(self).__name__} takes a {self._layer.__name__}, got {type(layer).__name__}"
            )
        count = positive_int("num_layers", num_layers)
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(count)])
        self.num_layers = count
        if norm is not None:
            self.norm = norm
        else:
            object.__setattr__(self, "norm", None)

    def _pack(self) -> _core.TransformerStack:
        norm = None if self.norm is None else self.norm._native()
        return _core.TransformerStack([layer._native() for layer in self.layers], norm)


class TransformerEncoder(_Stack):
    """A stack of encoder layers, as torch.nn.TransformerEncoder.

    encoder_layer is copied num_layers times. enable_nested_tensor and mask_check are accepted and do
    nothing: padding is always taken out.
    """

    _layer = TransformerEncoderLayer

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
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
        _check_hint("mask", mask, bool(is_causal))
        return _encode(
            self._native(),
            list(self.layers),
            src,
            mask,
            src_key_padding_mask,
            cu_seqlens,
            head_mask,
            need_weights,
            cache,
            num_threads,
        )


class TransformerDecoder(_Stack):
    """A stack of decoder layers, as torch.nn.TransformerDecoder. decoder_layer is copied."""

    _layer = TransformerDecoderLayer

    def __init__(
        self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None
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
        _check_hint("tgt_mask", tgt_mask, bool(tgt_is_causal))
        _check_hint("memory_mask", memory_mask, memory_is_causal)
        return _decode(
            self._native(),
            list(self.layers),
            tgt,
            memory,
            (tgt_mask, tgt_key_padding_mask, cu_seqlens),
            (memory_mask, memory_key_padding_mask, memory_cu_seqlens),
            head_mask,
            need_weights,
            cache,
            num_threads,
        )


class Transformer(Module):
    """Encoder and decoder, as torch.nn.Transformer: figure 1 of Vaswani et al. 2017 without
    embeddings and output projection. Keyword arguments behind torch's go to the layers.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: object = None,
        dtype: object = None,
        **options: Any,
    ) -> None:
        super().__init__()
        arguments = (
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
            device,
            dtype,
        )
        norm = options.get("norm", "layer")
        if custom_encoder is None:
            custom_encoder = TransformerEncoder(
                TransformerEncoderLayer(*arguments, **options),
                num_encoder_layers,
                make_norm(norm, d_model, layer_norm_eps, bias),
            )
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(
                TransformerDecoderLayer(*arguments, **options),
                num_decoder_layers,
                make_norm(norm, d_model, layer_norm_eps, bias),
            )
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        src_cu_seqlens: Any = None,
        tgt_cu_seqlens: Any = None,
        num_threads: int = 0,
    ) -> Float32:
        """decoder(tgt, encoder(src)); masks and layouts as of the two stacks."""
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
            cu_seqlens=src_cu_seqlens,
            num_threads=num_threads,
        )
        out: Float32 = self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
            cu_seqlens=tgt_cu_seqlens,
            memory_cu_seqlens=src_cu_seqlens,
            num_threads=num_threads,
        )
        return out

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: object = None, dtype: object = None
    ) -> Float32:
        """The causal mask, float32 (sz, sz): -inf above the diagonal, else 0."""
        check_placement(device, dtype)
        return np.triu(np.full((sz, sz), -np.inf, np.float32), 1)


def _check_activation(name: object) -> str:
    known = [*_core.activations(), *GATED]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(known)}")
    return name


def _check_hint(name: str, mask: Any, is_causal: bool) -> None:
    if is_causal and mask is None:
        raise ValueError(f"is_causal is a hint about {name}, which is None")


def _self_masks(
    name: str, x: layout.Sequences, mask: Any, padding_mask: Any, heads: int, cached: bool
) -> tuple[layout.Sequences, _core.Masks]:
    """The sequences without their padding, and masks for what lengths can't say."""
    padding = layout.key_padding(f"{name}_key_padding_mask", padding_mask, x)
    if cached and (mask is not None or padding.keep is not None):
        raise ValueError(
            f"{name}_mask must be None, and padding must be on the right, with a cache"
        )
    pairs = layout.attention_pairs(f"{name}_mask", mask, x, x, heads)
    if cached:
        pairs = layout.Pairs(causal=True)
    masks = layout.native_masks(padding, pairs)
    return (x if padding.lengths is None else x.with_lengths(padding.lengths)), masks


def _layer_arguments(
    layers: list[_Layer], head_mask: Any, batch: int, length: int
) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if any(layer.self_attn.position is not None for layer in layers):
        arguments["positions"] = [position_arguments(layer.self_attn, length) for layer in layers]
    if head_mask is not None:
        if len(head_mask) != len(layers):
            raise ValueError(
                f"head_mask must have one entry a layer, {len(layers)}, got {len(head_mask)}"
            )
        arguments["head_masks"] = [
            layout.head_factors(mask, batch, layer.self_attn.num_heads)
            for mask, layer in zip(head_mask, layers, strict=True)
        ]
    return arguments


def _weights(attentions: list[MultiheadAttention], n: int, length: int, keys: int) -> list[Float32]:
    return [np.zeros((n, a.num_heads, length, keys), np.float32) for a in attentions]


def _zero_padding(x: layout.Sequences, out: Float32, mask: Any) -> None:
    """Padding that is not on the right passes through the layers; its rows become 0 behind them."""
    array = np.asarray(mask)
    ignore = array if array.dtype == np.bool_ else np.isneginf(array)
    if not x.batched:
        out[ignore.reshape(-1)] = 0.0
    else:
        out[ignore if x.batch_first else ignore.T] = 0.0


def _encode(
    stack: _core.TransformerStack,
    layers: list[_Layer],
    src: Any,
    mask: Any,
    padding_mask: Any,
    cu_seqlens: Any,
    head_mask: Any,
    need_weights: bool,
    cache: DecoderCache | None,
    num_threads: int,
) -> Any:
    first = layers[0]
    x = layout.sequences("src", src, first.d_model, first.batch_first, cu_seqlens)
    heads = first.self_attn.num_heads
    real, masks = _self_masks("src", x, mask, padding_mask, heads, cache is not None)
    keys = x.length + (0 if cache is None else cache.max_length)
    arguments = _layer_arguments(layers, head_mask, x.batch, keys)
    if need_weights:
        attentions = [layer.self_attn for layer in layers]
        arguments["self_weights"] = _weights(attentions, x.batch, x.length, keys)
    out, view = x.empty_output(first.d_model)
    stack.forward(
        x.view,
        real.cu_seqlens,
        view,
        masks=masks,
        self_cache=None if cache is None else cache.self_cache,
        num_threads=num_threads,
        **arguments,
    )
    if padding_mask is not None and real is x:
        _zero_padding(x, out, padding_mask)
    return (out, arguments["self_weights"]) if need_weights else out


def _decode(
    stack: _core.TransformerStack,
    layers: list[_Layer],
    tgt: Any,
    memory: Any,
    tgt_masks: tuple[Any, Any, Any],
    memory_masks: tuple[Any, Any, Any],
    head_mask: Any,
    need_weights: bool,
    cache: DecoderCache | None,
    num_threads: int,
) -> Any:
    first = layers[0]
    mask, padding_mask, cu_seqlens = tgt_masks
    x = layout.sequences("tgt", tgt, first.d_model, first.batch_first, cu_seqlens)
    heads = first.self_attn.num_heads
    real, masks = _self_masks("tgt", x, mask, padding_mask, heads, cache is not None)
    keys = x.length + (0 if cache is None else cache.max_length)
    arguments = _layer_arguments(layers, head_mask, x.batch, keys)
    memory_arguments, memory_keys = _memory_arguments(first, x, memory, memory_masks, cache)
    if need_weights:
        own = [layer.self_attn for layer in layers]
        cross = [layer.multihead_attn for layer in layers]
        arguments["self_weights"] = _weights(own, x.batch, x.length, keys)
        arguments["cross_weights"] = _weights(cross, x.batch, x.length, memory_keys)
    out, view = x.empty_output(first.d_model)
    stack.forward(
        x.view,
        real.cu_seqlens,
        view,
        masks=masks,
        self_cache=None if cache is None else cache.self_cache,
        cross_cache=None if cache is None else cache.cross_cache,
        num_threads=num_threads,
        **arguments,
        **memory_arguments,
    )
    if padding_mask is not None and real is x:
        _zero_padding(x, out, padding_mask)
    if need_weights:
        return out, arguments["self_weights"], arguments["cross_weights"]
    return out


def _memory_arguments(
    layer: _Layer,
    x: layout.Sequences,
    memory: Any,
    memory_masks: tuple[Any, Any, Any],
    cache: DecoderCache | None,
) -> tuple[dict[str, Any], int]:
    """What the native call takes of a memory, and how many keys its weights speak of."""
    mask, padding_mask, cu_seqlens = memory_masks
    if memory is None:
        if cache is None or cache.max_memory_length == 0:
            raise ValueError("memory must be given: no cache holds one")
        if mask is not None or padding_mask is not None:
            raise ValueError("memory masks must be None when the memory comes from the cache")
        return {}, cache.max_memory_length
    m = layout.sequences("memory", memory, layer.d_model, layer.batch_first, cu_seqlens)
    if m.batch != x.batch:
        raise ValueError(f"tgt and memory must hold as many sequences, got {x.batch}, {m.batch}")
    padding = layout.key_padding("memory_key_padding_mask", padding_mask, m)
    if cache is not None and (mask is not None or padding.keep is not None):
        raise ValueError(
            "memory_mask must be None, and the memory's padding on the right, with a cache"
        )
    pairs = layout.attention_pairs("memory_mask", mask, x, m, layer.multihead_attn.num_heads)
    cu = m.cu_seqlens if padding.lengths is None else layout.cumulative(padding.lengths)
    arguments = {
        "memory": m.view,
        "memory_cu_seqlens": cu,
        "memory_masks": layout.native_masks(padding, pairs),
    }
    return arguments, m.length

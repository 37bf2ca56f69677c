# SPDX-License-Identifier: Apache-2.0
"""The encoder layer and the encoder. A call of either is one native call."""

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
    """Self-attention and feed-forward, as torch.nn.TransformerEncoderLayer with further options.

    Parameters
    ----------
    d_model, nhead, dim_feedforward, layer_norm_eps, batch_first, norm_first, bias
        As in torch.
    dropout, device, dtype
        As in torch, without effect: dropout is not applied in inference, device must be the CPU, dtype
        float32.
    activation
        "relu", "gelu" (the erf form), "gelu_tanh", "silu", "quick_gelu", "tanh", "sigmoid" or
        "identity", or the function or module of one in this library or torch. A gated activation
        computes linear2(activation(linear_gate(x)) * linear1(x)): "glu", "bilinear", "reglu", "geglu",
        "geglu_tanh", "quick_geglu", "swiglu" or "tanh_glu".
    norm
        "layer", "rms" (Zhang and Sennrich 2019), or "batch" with running statistics.
    output_norm
        True adds norms of the sublayers' outputs, output_norm1 and output_norm2, before the residual term
        is added (Gemma 2 and 3). "residual": these norms are applied after it is added.
    residual
        False: no residual connections.
    alpha
        Factor of the residual term, as in DeepNorm (Wang et al. 2022).
    experts
        A `MixtureOfExperts` instead of the feed-forward. Then dim_feedforward and activation have no effect.
    **attention
        num_kv_heads, score, scale, softcap, tie_qk, position, masked_row, window_size, qk_norm and
        logit_scale of `MultiheadAttention`.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 3.1.

    Examples
    --------
    >>> from simdformer import nn
    >>> layer = nn.TransformerEncoderLayer(8, nhead=2, batch_first=True, activation="gelu")
    >>> layer(np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 5, 8)
    """

    _norms = ("norm1", "norm2")

    def sample(self) -> Sample:
        """The default sample for quantization."""
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
        """Apply the layer.

        Parameters
        ----------
        src, src_key_padding_mask, is_causal, cu_seqlens, head_mask, need_weights, cache, num_threads
            See `TransformerEncoder.forward`.
        src_mask
            The mask of `TransformerEncoder.forward`.

        Returns
        -------
        float32 array
            See `TransformerEncoder.forward`.
        """
        layout.check_hint("is_causal", is_causal, "src_mask", src_mask)
        options = CallOptions(
            None if head_mask is None else [head_mask], need_weights, cache, num_threads
        )
        masks = Masks(src_mask, src_key_padding_mask, cu_seqlens, "src_mask")
        return _encode(self.stack(), [self], src, masks, options)


class TransformerEncoder(TransformerStack):
    """A stack of encoder layers, as torch.nn.TransformerEncoder.

    Parameters
    ----------
    encoder_layer
        The layer, copied num_layers times. Several layers are used in turn: [global, local, local]
        makes layers 0, 3, 6, ... global, as in ModernBERT.
    num_layers
        Number of layers.
    norm
        A norm after the last layer.
    enable_nested_tensor, mask_check
        Accepted without effect: padding is always removed.

    Examples
    --------
    >>> from simdformer import nn
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)
    >>> encoder(np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 5, 8)
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
        """Apply all layers.

        Parameters
        ----------
        src
            float32 (S, N, E), (N, S, E) if batch_first, (S, E), or packed (total, E) with cu_seqlens.
        mask
            bool (S, S) or (N * nhead, S, S), True = ignore, or float32, added to the scores.
        src_key_padding_mask
            bool (N, S), True = ignore, or float32, added to the scores.
        is_causal
            A hint that mask is causal. The result depends on the mask only.
        cu_seqlens
            Integers (batch + 1,), offsets of packed sequences.
        head_mask
            float32 factors of the heads' outputs, one entry per layer: (nhead,), (N, nhead) or None.
        need_weights
            Also return the attention weights.
        cache
            Keys and values of the tokens before src. src's are added; attention is causal, and mask must be
            None.
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 array
            The layout of src, 0 at padding. With need_weights also a list of (N, nhead, S, S), one per
            layer.
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

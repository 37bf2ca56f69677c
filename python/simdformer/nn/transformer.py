# SPDX-License-Identifier: Apache-2.0
"""An encoder and a decoder together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simdformer.nn import layout
from simdformer.nn.compute_types import Sample, sample_offsets, sample_rows
from simdformer.nn.decoder import TransformerDecoder, TransformerDecoderLayer
from simdformer.nn.encoder import TransformerEncoder, TransformerEncoderLayer
from simdformer.nn.module import Float32, Module, check_placement
from simdformer.nn.norms import make_norm


class Transformer(Module):
    """Encoder and decoder, as torch.nn.Transformer (without embeddings and output projection).

    Parameters
    ----------
    d_model, nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, dropout, activation
        See `TransformerEncoderLayer` and `TransformerEncoder`.
    custom_encoder, custom_decoder
        Modules to use instead.
    layer_norm_eps, batch_first, norm_first, bias, device, dtype
        See `TransformerEncoderLayer`.
    **options
        Further arguments of the layers.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, figure 1.

    Examples
    --------
    >>> from simdformer import nn
    >>> model = nn.Transformer(8, 2, 1, 1, dim_feedforward=16, batch_first=True)
    >>> model(np.ones((1, 5, 8), dtype=np.float32), np.ones((1, 3, 8), dtype=np.float32)).shape
    (1, 3, 8)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[..., Any] = "relu",
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
        layer: dict[str, Any] = {
            "d_model": d_model,
            "nhead": nhead,
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
            "device": device,
            "dtype": dtype,
            **options,
        }

        def last_norm() -> Module:
            return make_norm(options.get("norm", "layer"), d_model, layer_norm_eps, bias)

        if custom_encoder is None:
            encoder_layer = TransformerEncoderLayer(**layer)
            custom_encoder = TransformerEncoder(encoder_layer, num_encoder_layers, last_norm())
        if custom_decoder is None:
            decoder_layer = TransformerDecoderLayer(**layer)
            custom_decoder = TransformerDecoder(decoder_layer, num_decoder_layers, last_norm())
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def sample(self) -> Sample:
        """The default sample for quantization."""
        cu = sample_offsets()
        rows = (sample_rows(self.d_model, cu), sample_rows(self.d_model, cu, 1))
        return Sample(rows, {"src_cu_seqlens": cu, "tgt_cu_seqlens": cu})

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
        """Compute decoder(tgt, encoder(src)).

        Parameters
        ----------
        src, src_mask, src_key_padding_mask, src_is_causal, src_cu_seqlens
            See `TransformerEncoder.forward`.
        tgt, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal
            See `TransformerDecoder.forward`.
        memory_is_causal, tgt_cu_seqlens, num_threads
            See `TransformerDecoder.forward`.

        Returns
        -------
        float32 array
            The layout of tgt.

        Raises
        ------
        ValueError
            If src has padding and memory_key_padding_mask is missing. Usually it is the same mask; without
            it, torch's decoder attends to the encoder's output at padding, which depends on how it ran.
        """
        hints = (("src", src_mask, src_is_causal), ("tgt", tgt_mask, tgt_is_causal))
        for name, mask, is_causal in hints:
            layout.check_hint(f"{name}_is_causal", is_causal, f"{name}_mask", mask)
        source = self._check("src", src, src_mask, src_key_padding_mask, src_cu_seqlens)
        self._check("tgt", tgt, tgt_mask, tgt_key_padding_mask, tgt_cu_seqlens)
        if source.leaves_some_out and memory_key_padding_mask is None:
            raise ValueError(
                "memory_key_padding_mask must be given with src_key_padding_mask: the same mask, or"
                " one that ignores nothing, to attend to the encoder's output at padding, which is 0"
            )
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

    def _check(
        self, name: str, x: Any, mask: Any, padding: Any, cu_seqlens: Any
    ) -> layout.KeyPadding:
        """Check the arguments, so that errors use this call's names."""
        cu_name = f"{name}_cu_seqlens"
        rows = layout.sequences(name, x, self.d_model, self.batch_first, cu_seqlens, cu_name)
        layout.attention_pairs(f"{name}_mask", mask, rows, rows, self.nhead)
        return layout.key_padding(f"{name}_key_padding_mask", padding, rows)

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: object = None, dtype: object = None
    ) -> Float32:
        """Return the causal mask.

        Parameters
        ----------
        sz
            Number of positions.
        device, dtype
            None, the CPU and float32.

        Returns
        -------
        float32 (sz, sz)
            -inf above the diagonal, 0 elsewhere.
        """
        check_placement(device, dtype)
        return np.triu(np.full((sz, sz), -np.inf, np.float32), 1)

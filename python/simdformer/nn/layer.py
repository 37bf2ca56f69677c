# SPDX-License-Identifier: Apache-2.0
"""What the encoder's and the decoder's layer share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.nn.attention import MultiheadAttention
from simdformer.nn.linear import Linear, check_placement
from simdformer.nn.module import Module
from simdformer.nn.norms import make_norm
from simdformer.nn.options import AttentionOptions, check_dropout

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Gated feed-forwards (Shazeer 2020): the activation of the gate.
GATED = {
    "glu": "sigmoid",
    "bilinear": "identity",
    "reglu": "relu",
    "geglu": "gelu",
    "geglu_tanh": "gelu_tanh",
    "quick_geglu": "quick_gelu",
    "swiglu": "silu",
    "tanh_glu": "tanh",
}

# What only self-attention is told.
SELF_ONLY = {"num_kv_heads", "tie_qk", "position", "window_size"}


class TransformerLayer(Module):
    """Attention and feed-forward between norms and residuals. The arguments: see
    TransformerEncoderLayer.
    """

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
        **attention: Unpack[AttentionOptions],
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        check_dropout(dropout)
        if unknown := attention.keys() - AttentionOptions.__annotations__.keys():
            raise TypeError(
                f"{type(self).__name__} got unknown arguments: {', '.join(sorted(unknown))}"
            )
        self.d_model = positive_int("d_model", d_model)
        self.nhead = nhead
        self.batch_first = batch_first
        self.norm_first = norm_first
        self.residual = residual
        self.alpha = alpha
        self.activation = activation
        _check_activation(activation)
        options: dict[str, Any] = {"bias": bias, "batch_first": batch_first}
        self.self_attn = MultiheadAttention(d_model, nhead, **options, **attention)
        if self._has_cross_attention:
            options |= {k: v for k, v in attention.items() if k not in SELF_ONLY}
            self.multihead_attn = MultiheadAttention(d_model, nhead, **options)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias)
        if activation in GATED:
            self.linear_gate = Linear(d_model, dim_feedforward, bias=bias)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias)
        for name in self._norms:
            setattr(self, name, make_norm(norm, d_model, layer_norm_eps, bias))

    @property
    def _has_cross_attention(self) -> bool:
        return "norm3" in self._norms

    def _pack(self) -> _core.TransformerLayer:
        _check_activation(self.activation)
        cross = self.multihead_attn.native() if self._has_cross_attention else None
        norms = [self._norm(name) for name in self._norms]
        return _core.TransformerLayer(
            self.self_attn.native(),
            cross,
            self._feed_forward(),
            norms[0],
            None if cross is None else norms[1],
            norms[-1],
            norm_first=self.norm_first,
            residual=self.residual,
            alpha=self.alpha,
        )

    def _feed_forward(self) -> _core.FeedForward:
        gated = self.activation in GATED
        if gated != hasattr(self, "linear_gate"):
            raise ValueError(
                f"activation {self.activation!r} is{'' if gated else ' not'} gated, but the layer was"
                f" built with{'out' if gated else ''} linear_gate"
            )
        return _core.FeedForward(
            self.linear1.native(),
            self.linear2.native(),
            activation=GATED[self.activation] if gated else self.activation,
            gate=self.linear_gate.native() if gated else None,
        )

    def _norm(self, name: str) -> _core.Norm | None:
        norm = getattr(self, name)
        if norm is None:
            raise ValueError(f"{name} is None; nn.Identity() leaves a norm out")
        native: _core.Norm | None = norm.native()
        return native

    def stack(self) -> _core.TransformerStack:
        """The layer as a stack of one."""
        layer = self.native()
        return self._kept.get("stack", (layer,), lambda: _core.TransformerStack([layer]))


def _check_activation(name: object) -> None:
    known = [*_core.activations(), *GATED]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(known)}")

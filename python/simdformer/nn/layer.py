# SPDX-License-Identifier: Apache-2.0
"""The common part of the encoder layer and the decoder layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.nn.activations import activation_name
from simdformer.nn.attention import MultiheadAttention
from simdformer.nn.experts import MixtureOfExperts
from simdformer.nn.linear import Linear, join_gate
from simdformer.nn.module import Module, PackedMatrix, check_placement
from simdformer.nn.norms import make_norm
from simdformer.nn.options import AttentionOptions, check_dropout

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Gated feed-forwards (Shazeer 2020), by the activation of the gate.
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

# The options that only self-attention gets.
SELF_ONLY = {"num_kv_heads", "tie_qk", "position", "window_size"}


class TransformerLayer(Module):
    """Attention and feed-forward with norms and residual connections. See TransformerEncoderLayer for the
    arguments."""

    _norms: tuple[str, ...]

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[..., Any] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: object = None,
        dtype: object = None,
        *,
        norm: str = "layer",
        output_norm: bool | str = False,
        residual: bool = True,
        alpha: float = 1.0,
        experts: MixtureOfExperts | None = None,
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
        if output_norm not in (False, True, "residual"):
            raise ValueError(f"output_norm must be False, True or 'residual', got {output_norm!r}")
        self.output_norm = output_norm
        self.residual = residual
        self.alpha = alpha
        self.activation = activation
        options: dict[str, Any] = {"bias": bias, "batch_first": batch_first}
        self.self_attn = MultiheadAttention(d_model, nhead, **options, **attention)
        if self._has_cross_attention:
            options |= {k: v for k, v in attention.items() if k not in SELF_ONLY}
            self.multihead_attn = MultiheadAttention(d_model, nhead, **options)
        self.experts = experts
        if experts is None:
            self.linear1 = Linear(d_model, dim_feedforward, bias=bias)
            if self.activation in GATED:
                self.linear_gate = Linear(d_model, dim_feedforward, bias=bias)
            self.linear2 = Linear(dim_feedforward, d_model, bias=bias)
        elif experts.d_model != d_model:
            raise ValueError(f"experts must have d_model={d_model}, got {experts.d_model}")
        kinds = ("", "output_") if output_norm else ("",)
        for name in [kind + norm_name for kind in kinds for norm_name in self._norms]:
            setattr(self, name, make_norm(norm, d_model, layer_norm_eps, bias))

    @property
    def activation(self) -> str:
        """The name of the activation. It can be set to anything that the constructor accepts."""
        name: str = self._activation
        return name

    @activation.setter
    def activation(self, value: str | Callable[..., Any]) -> None:
        self._activation: Any = activation_name(value, tuple(GATED))

    @property
    def _has_cross_attention(self) -> bool:
        return "norm3" in self._norms

    def _pack(self) -> _core.TransformerLayer:
        cross = self.multihead_attn.packed_as("cross") if self._has_cross_attention else None
        norms = [self._norm(name) for name in self._norms]
        outputs = [self._norm(f"output_{n}") if self.output_norm else None for n in self._norms]
        return _core.TransformerLayer(
            self.self_attn.packed_as("self"),
            cross,
            self._feed_forward(),
            norms[0],
            None if cross is None else norms[1],
            norms[-1],
            output_norms=[outputs[0], None if cross is None else outputs[1], outputs[-1]],
            norm_first=self.norm_first,
            residual=self.residual,
            output_residual=self.output_norm == "residual",
            alpha=self.alpha,
        )

    def _feed_forward(self) -> _core.FeedForward | _core.Experts:
        if self.experts is not None:
            native: _core.Experts = self.experts.native()
            return native
        up, down = self.linear1, self.linear2
        if not self._is_gated():
            return _core.FeedForward(up.native(), down.native(), activation=self.activation)
        activation, joined = GATED[self.activation], self._gate_up()
        if joined is not None:
            return _core.FeedForward.joined(joined, down.native(), activation=activation)
        gate = self.linear_gate.native()
        return _core.FeedForward(up.native(), down.native(), activation=activation, gate=gate)

    def _is_gated(self) -> bool:
        gated = self.activation in GATED
        if gated != hasattr(self, "linear_gate"):
            raise ValueError(
                f"activation {self.activation!r} is{'' if gated else ' not'} gated, but the layer was"
                f" built with{'out' if gated else ''} linear_gate"
            )
        return gated

    def _gate_up(self) -> _core.Linear | None:
        """linear_gate and linear1 as one matrix; None if they cannot be joined."""
        gate, up = self.linear_gate, self.linear1
        inputs = (*gate.shaping(), *up.shaping())
        return self._kept.get("gate and up", inputs, lambda: join_gate(gate, up))

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """The matrices of attention and feed-forward in the layer's packed form."""
        yield from self.self_attn.packed_matrices("self")
        if self._has_cross_attention:
            yield from self.multihead_attn.packed_matrices("cross")
        if self.experts is not None:
            yield from self.experts.packed_matrices()
            return
        joined = self._gate_up() if self._is_gated() else None
        for linear in (self.linear1, *([self.linear_gate] if self._is_gated() else [])):
            if joined is None:
                yield from linear.packed_matrices()
            else:
                yield PackedMatrix(linear, "weight", (joined,))
        yield from self.linear2.packed_matrices()

    def _norm(self, name: str) -> _core.Norm | None:
        norm = getattr(self, name)
        if norm is None:
            raise ValueError(f"{name} is None; nn.Identity() leaves a norm out")
        native: _core.Norm | None = norm.native()
        return native

    def stack(self) -> _core.TransformerStack:
        """A stack that contains only this layer."""
        layer = self.native()
        return self._kept.get("stack", (layer,), lambda: _core.TransformerStack([layer]))

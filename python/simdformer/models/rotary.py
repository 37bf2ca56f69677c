# SPDX-License-Identifier: Apache-2.0
"""The parts shared by encoders with rotary positions (Su et al., 2021, arXiv:2104.09864): fields of
config.json, and layers, usually gated, pre-norm or post-norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simdformer import nn
from simdformer.models.config_fields import mapping, number_of, one_of, positive_int
from simdformer.models.names import FieldNames
from simdformer.nn.position import Position

# The numbers of keys before and after a query that it sees; -1 means all.
EVERYWHERE = (-1, -1)
# Two million positions of 128 features, which take 1 GB. No tensor has a shape to check this number against.
_LARGEST_TABLE = 2**28
# The values of layer_types: layers that see all tokens, and layers with a window.
GLOBAL, LOCAL = "full_attention", "sliding_attention"

FIELDS = FieldNames(
    query_size="num_attention_heads * head_dim", key_size="num_key_value_heads * head_dim"
)

# The gated feed-forward of each activation.
GATED = {
    "gelu": "geglu",
    "gelu_tanh": "geglu_tanh",
    "identity": "bilinear",
    "quick_gelu": "quick_geglu",
    "relu": "reglu",
    "sigmoid": "glu",
    "silu": "swiglu",
    "tanh": "tanh_glu",
}


def without_null(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not null."""
    return {name: value for name, value in config.items() if value is not None}


@dataclass(frozen=True)
class Sizes:
    """The sizes in config.json."""

    vocab_size: int
    hidden_size: int
    inner_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Sizes:
        """Read and check config.json. Errors: ValueError naming the field, its value and the allowed
        values."""
        config = without_null(config)
        needed = ("vocab_size", "hidden_size", "intermediate_size")
        vocab_size, hidden, inner = (positive_int(config, name) for name in needed)
        layers = number_of(config, "num_hidden_layers")
        max_positions = positive_int(config, "max_position_embeddings")
        heads = positive_int(config, "num_attention_heads")
        kv_heads = positive_int(config, "num_key_value_heads", heads)
        if "head_dim" not in config and hidden % heads:
            raise ValueError(
                f"config.json: hidden_size={hidden} is not a multiple of num_attention_heads={heads}"
            )
        head_dim = positive_int(config, "head_dim", hidden // heads)
        if heads % kv_heads:
            raise ValueError(
                f"config.json: num_attention_heads={heads} is not a multiple of"
                f" num_key_value_heads={kv_heads}"
            )
        if head_dim % 2:
            raise ValueError(f"config.json: head_dim must be even to be rotated, got {head_dim}")
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden,
            inner_size=inner,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            max_positions=max_positions,
        )


def rope_parameters(config: Mapping[str, Any], theta: float) -> Mapping[str, Any]:
    """rope_parameters, or rope_theta and rope_scaling of configurations before transformers 5."""
    given = {**mapping(config, "rope_scaling"), **mapping(config, "rope_parameters")}
    if config.get("partial_rotary_factor") is not None:
        given.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    thetas = (given.get("rope_theta"), config.get("rope_theta"))
    return {**given, "rope_theta": next((value for value in thetas if value is not None), theta)}


def rope_parameters_of(config: Mapping[str, Any], layer_type: str) -> object:
    """The entry of rope_parameters for one type of layer; None if there is none."""
    given = mapping(config, "rope_parameters")
    if unknown := sorted(set(given) - {GLOBAL, LOCAL}):
        listed = ", ".join(map(repr, unknown))
        raise ValueError(
            f"config.json: unknown members of rope_parameters: {listed}; known: {GLOBAL!r}, {LOCAL!r}"
        )
    return given.get(layer_type)


def layer_types(config: Mapping[str, Any], default: list[str]) -> list[str]:
    """The type of each layer, GLOBAL or LOCAL. default: one type per layer, if config.json has no list."""
    types = config.get("layer_types")
    if types is None:
        return default
    if not isinstance(types, list) or len(types) != len(default):
        raise ValueError(
            f"config.json: layer_types must be a list of {len(default)} names, got {types!r}"
        )
    return [
        str(one_of({"layer_types": name}, "layer_types", [GLOBAL, LOCAL], None)) for name in types
    ]


def rotary_positions(sizes: Sizes, parameters: Mapping[str, Any]) -> nn.RotaryEmbedding:
    """The rotations that rope_parameters describe.

    The angles are exact. transformers computes them as products in float32, with a relative error of about
    1e-7.
    """
    parameters = dict(parameters)
    if parameters.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("config.json: partial_rotary_factor is not supported")
    kind = parameters.get("rope_type", parameters.get("type"))
    if kind in ("dynamic", "longrope"):
        raise ValueError(
            f"config.json: rope_type {kind!r} is not supported: a text's vector would depend on the"
            " longest text beside it"
        )
    length, dim = sizes.max_positions, sizes.head_dim
    if length * dim > _LARGEST_TABLE:
        raise ValueError(
            f"config.json: max_position_embeddings={length} with head_dim={dim} needs a table of"
            f" rotations of more than {_LARGEST_TABLE} numbers"
        )
    if kind in ("yarn", "llama3"):  # as in transformers
        parameters.setdefault("original_max_position_embeddings", length)
    try:
        return nn.RotaryEmbedding(dim, scaling=parameters, max_positions=length)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: rotary positions: {error}") from error


@dataclass(frozen=True)
class LayerKind:
    """The common settings of an encoder's layers.

    activation: of the gate, or of the feed-forward if there is no gate.
    rms: RMSNorm instead of LayerNorm. norm_bias: whether LayerNorm has a bias.
    attention_bias, up_bias, down_bias: whether these matrices have a bias. output_bias: whether the last
    matrix of attention has one, if that differs from attention_bias.
    head_norms: norms of queries and keys; "together" normalizes all heads' features at once.
    output_norm: as of nn.TransformerEncoderLayer. scale: of the scores; None for head_dim ** -0.5.
    """

    activation: str
    eps: float
    norm_first: bool
    rms: bool = False
    norm_bias: bool = False
    attention_bias: bool = False
    output_bias: bool | None = None
    up_bias: bool = False
    down_bias: bool = False
    head_norms: bool | str = False
    output_norm: bool | str = False
    scale: float | None = None
    gated: bool = True

    def norm(self, size: int) -> nn.Module:
        """A norm of this kind."""
        return nn.RMSNorm(size, eps=self.eps) if self.rms else self.layer_norm(size)

    def layer_norm(self, size: int) -> nn.LayerNorm:
        """A LayerNorm, as the embeddings have it."""
        return nn.LayerNorm(size, eps=self.eps, bias=self.norm_bias)

    def layer(
        self,
        sizes: Sizes,
        position: Position | None,
        *,
        window: tuple[int, int] = EVERYWHERE,
        experts: nn.MixtureOfExperts | None = None,
    ) -> nn.TransformerEncoderLayer:
        """One layer. window: the numbers of keys before and after a query that it sees. experts: instead of
        the feed-forward."""
        hidden, inner = sizes.hidden_size, sizes.inner_size
        normed = sizes.head_dim * (sizes.num_heads if self.head_norms == "together" else 1)
        layer = nn.TransformerEncoderLayer(
            hidden,
            sizes.num_heads,
            inner,
            activation=GATED[self.activation] if self.gated else self.activation,
            norm_first=self.norm_first,
            bias=self.attention_bias,
            output_norm=self.output_norm,
            experts=experts,
            scale=sizes.head_dim**-0.5 if self.scale is None else self.scale,
            num_kv_heads=sizes.num_kv_heads,
            head_dim=sizes.head_dim,
            position=position,
            window_size=window,
            qk_norm=self.norm(normed) if self.head_norms else None,
        )
        if self.output_bias is not None:
            queries = layer.self_attn.heads.query_dim
            layer.self_attn.out_proj = nn.Linear(queries, hidden, bias=self.output_bias)
        if experts is None:
            layer.linear1 = nn.Linear(hidden, inner, bias=self.up_bias)
            if self.gated:
                layer.linear_gate = nn.Linear(hidden, inner, bias=self.up_bias)
            layer.linear2 = nn.Linear(inner, hidden, bias=self.down_bias)
        layer.norm1, layer.norm2 = self.norm(hidden), self.norm(hidden)
        if self.output_norm:
            layer.output_norm1, layer.output_norm2 = self.norm(hidden), self.norm(hidden)
        return layer

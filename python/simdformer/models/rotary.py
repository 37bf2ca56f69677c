# SPDX-License-Identifier: Apache-2.0
"""What encoders with rotary positions (Su et al., 2021, arXiv:2104.09864) share: gated feed-forwards,
pre- or post-norm, whatever each architecture calls its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simdformer._core import (
    Embeddings,
    FeedForward,
    LayerNorm,
    Linear,
    MultiheadAttention,
    Norm,
    Positions,
    TransformerLayer,
    sin_cos,
)
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import Float32, Precision
from simdformer.checkpoint.weights import Weights
from simdformer.functional import rotary_frequencies
from simdformer.models.config_fields import flag, mapping, one_of, positive_int

# Keys before and behind a query that it sees; -1: all.
EVERYWHERE = (-1, -1)
# Two million positions of 128 features, in 1 GB: no tensor's shape says that there are fewer.
_LARGEST_TABLE = 2**28
# What config.json's layer_types calls layers that see all, and those that see a window.
GLOBAL, LOCAL = "full_attention", "sliding_attention"


class Part(NamedTuple):
    """A matrix of a layer: a tensor, or of those of one shape that it holds below one another the one
    that `share` names, as (index, count)."""

    tensor: str
    share: tuple[int, int] = (0, 1)


class LayerNames(NamedTuple):
    """What a checkpoint calls the tensors of a layer, below the layer's own name.

    head_norms: of each head's queries and keys, if there are any.
    """

    query: Part
    key: Part
    value: Part
    output: Part
    gate: Part
    up: Part
    down: Part
    attention_norm: str
    feed_forward_norm: str
    head_norms: tuple[str, str] | None = None


@dataclass(frozen=True)
class LayerKind:
    """What the layers of an encoder have in common.

    biased: the fields of LayerNames whose matrices have a bias. rms: RMSNorm in place of LayerNorm.
    """

    names: LayerNames
    activation: str
    eps: float
    norm_first: bool
    rms: bool = False
    norm_bias: bool = False
    biased: frozenset[str] = frozenset()


def biased(config: Mapping[str, Any]) -> frozenset[str]:
    """The matrices that have a bias by attention_bias and mlp_bias."""
    fields = {
        "attention_bias": ("query", "key", "value", "output"),
        "mlp_bias": ("gate", "up", "down"),
    }
    return frozenset(part for name in fields if flag(config, name, False) for part in fields[name])


def read_sizes(config: Mapping[str, Any], **defaults: int) -> dict[str, int]:
    """The sizes of config.json, by its fields; products have names of their own.

    defaults: further fields, and what they are where config.json does not say.
    """
    config = {name: value for name, value in config.items() if value is not None}
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    sizes = {name: positive_int(config, name) for name in (*needed, "max_position_embeddings")}
    heads = sizes["num_attention_heads"] = positive_int(config, "num_attention_heads")
    kv_heads = sizes["num_key_value_heads"] = positive_int(config, "num_key_value_heads", heads)
    if "head_dim" not in config and sizes["hidden_size"] % heads:
        raise ValueError(
            f"config.json: hidden_size={sizes['hidden_size']} is not a multiple of"
            f" num_attention_heads={heads}"
        )
    head_dim = sizes["head_dim"] = positive_int(config, "head_dim", sizes["hidden_size"] // heads)
    if heads % kv_heads:
        raise ValueError(
            f"config.json: num_attention_heads={heads} is not a multiple of"
            f" num_key_value_heads={kv_heads}"
        )
    if head_dim % 2:
        raise ValueError(f"config.json: head_dim must be even to be rotated, got {head_dim}")
    sizes["num_attention_heads * head_dim"] = heads * head_dim
    sizes["num_key_value_heads * head_dim"] = kv_heads * head_dim
    return sizes | {name: positive_int(config, name, size) for name, size in defaults.items()}


def rope_parameters(config: Mapping[str, Any], theta: float) -> Mapping[str, Any]:
    """rope_parameters, or rope_theta and rope_scaling of configurations before transformers 5."""
    given = {**mapping(config, "rope_scaling"), **mapping(config, "rope_parameters")}
    if config.get("partial_rotary_factor") is not None:
        given.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    thetas = (given.get("rope_theta"), config.get("rope_theta"))
    return {**given, "rope_theta": next((value for value in thetas if value is not None), theta)}


def layer_types(config: Mapping[str, Any], default: list[str]) -> list[str]:
    """What each layer sees, GLOBAL or LOCAL; default, one a layer, where config.json does not say."""
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


def rotary_table(sizes: Mapping[str, int], parameters: Mapping[str, Any]) -> Positions:
    """The rotations of all positions.

    The angles are exact; transformers' are products in float32, off by some 1e-7 of themselves.
    """
    parameters = dict(parameters)
    if parameters.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("config.json: partial_rotary_factor is not supported")
    kind = parameters.get("rope_type", parameters.get("type"))
    if kind == "dynamic":
        raise ValueError(
            "config.json: rope_type 'dynamic' is not supported: a text's vector would depend on the"
            " longest text beside it"
        )
    length, dim = sizes["max_position_embeddings"], sizes["head_dim"]
    if length * dim > _LARGEST_TABLE:
        raise ValueError(
            f"config.json: max_position_embeddings={length} with head_dim={dim} needs a table of"
            f" rotations of more than {_LARGEST_TABLE} numbers"
        )
    if kind in ("yarn", "llama3"):  # as transformers
        parameters.setdefault("original_max_position_embeddings", length)
    try:
        frequencies, factor = rotary_frequencies(dim, scaling=parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: rotary positions: {error}") from error
    cos, sin = (np.empty((length, dim // 2), np.float32) for _ in range(2))
    sin_cos(np.arange(length, dtype=np.float64), frequencies, factor, sin, cos)
    return Positions(cos=cos, sin=sin)


class RotaryParts:
    """Makes the parts of one encoder from its checkpoint."""

    def __init__(
        self,
        kind: LayerKind,
        sizes: Mapping[str, int],
        checkpoint: Checkpoint,
        precision: Precision,
        *,
        prefixes: Sequence[str],
    ) -> None:
        self.weights = Weights(checkpoint, sizes, prefixes)
        self._kind = kind
        self._sizes = sizes
        self._precision = precision

    def embeddings(
        self, word: str, *, token_type: str | None = None, norm: str | None = None
    ) -> Embeddings:
        """Word and, if they have a name, token type embeddings, with a LayerNorm if that has one."""
        return Embeddings(
            self._precision.table(self.weights.matrix(word, "vocab_size", "hidden_size")),
            None,
            self.weights(f"{token_type}.weight", "type_vocab_size", "hidden_size")
            if token_type
            else None,
            self._layer_norm(norm) if norm else None,
        )

    def norm(self, name: str, size: str = "hidden_size") -> Norm:
        """A norm of the encoder's kind. size: names the field with its size."""
        if self._kind.rms:
            return Norm.rms(self.weights(f"{name}.weight", size), eps=self._kind.eps)
        return Norm.layer(self._layer_norm(name))

    def layer(
        self,
        stem: str,
        table: Positions,
        *,
        window: tuple[int, int] = EVERYWHERE,
        attention_norm: bool = True,
    ) -> TransformerLayer:
        """One layer. window: keys that a query sees, before and behind it."""
        kind, names = self._kind, self._kind.names
        feed_forward = FeedForward(
            self._linear(stem, "up", "intermediate_size", "hidden_size"),
            self._linear(stem, "down", "hidden_size", "intermediate_size"),
            activation=kind.activation,
            gate=self._linear(stem, "gate", "intermediate_size", "hidden_size"),
        )
        return TransformerLayer(
            self._attention(stem, window, table),
            None,
            feed_forward,
            self.norm(f"{stem}.{names.attention_norm}") if attention_norm else None,
            None,
            self.norm(f"{stem}.{names.feed_forward_norm}"),
            norm_first=kind.norm_first,
        )

    def _attention(
        self, stem: str, window: tuple[int, int], table: Positions
    ) -> MultiheadAttention:
        queries, keys = (f"num_{kind}_heads * head_dim" for kind in ("attention", "key_value"))
        norms: list[Norm | None] = [None, None]
        if self._kind.names.head_norms:
            norms = [
                self.norm(f"{stem}.{name}", "head_dim") for name in self._kind.names.head_norms
            ]
        return MultiheadAttention(
            [
                [
                    self._linear(stem, "query", queries, "hidden_size"),
                    self._linear(stem, "key", keys, "hidden_size"),
                    self._linear(stem, "value", keys, "hidden_size"),
                ]
            ],
            self._linear(stem, "output", "hidden_size", queries),
            num_heads=self._sizes["num_attention_heads"],
            num_kv_heads=self._sizes["num_key_value_heads"],
            softmax_scale=self._sizes["head_dim"] ** -0.5,
            window=window,
            query_norm=norms[0],
            key_norm=norms[1],
            position=table,
        )

    def _linear(self, stem: str, part: str, out_features: str, in_features: str) -> Linear:
        tensor, share = getattr(self._kind.names, part)
        full = f"{stem}.{tensor}"
        name = full if share == (0, 1) else f"{full}.{part}"
        weight = self.weights.matrix(name, out_features, in_features, parts=(full,), share=share)
        bias: Float32 | None = None
        if part in self._kind.biased:
            bias = self.weights.share(f"{full}.bias", out_features, share)
        return self._precision.linear(weight, bias)

    def _layer_norm(self, name: str) -> LayerNorm:
        bias = self.weights(f"{name}.bias", "hidden_size") if self._kind.norm_bias else None
        weight = self.weights(f"{name}.weight", "hidden_size")
        return LayerNorm(weight, bias, eps=self._kind.eps)

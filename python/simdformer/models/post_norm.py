# SPDX-License-Identifier: Apache-2.0
"""What BERT and its relatives share: embeddings and post-norm layers, whatever each one calls them."""

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
)
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import Precision
from simdformer.checkpoint.weights import Weights
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import empty, one_of, positive_float, positive_int


class FieldNames(NamedTuple):
    """What config.json calls the fields that every architecture has; by default as BERT's."""

    hidden_size: str = "hidden_size"
    inner_size: str = "intermediate_size"
    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    activation: str = "hidden_act"


BERT_FIELDS = FieldNames()


class LayerNames(NamedTuple):
    """What a checkpoint calls the tensors of a layer, below the layer's own name.

    qkv: the name that query, key and value have as one matrix.
    """

    qkv: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


@dataclass(frozen=True)
class PostNormConfig:
    """The fields of config.json that shape the computation.

    sizes: those that are sizes, by the names that config.json has for them.
    """

    fields: FieldNames
    sizes: Mapping[str, int]
    activation: str
    eps: float

    @classmethod
    def from_dict(
        cls,
        config: Mapping[str, Any],
        *,
        fields: FieldNames = BERT_FIELDS,
        eps: float | None = None,
        **defaults: int,
    ) -> PostNormConfig:
        """Check config.json. ValueError names the field, what it holds and what it may hold.

        eps: of every norm; if None, that of config.json, or transformers' default. defaults: further
        sizes, and what they are where config.json does not say.
        """
        one_of(config, "position_embedding_type", ["absolute"], "absolute")
        one_of(config, "is_decoder", [False], False)
        one_of(config, "add_cross_attention", [False], False)
        for changed_by in ("adapters", "pruned_heads"):
            empty(config, changed_by)
        needed = (*fields[:4], "vocab_size", "max_position_embeddings")
        sizes = {name: positive_int(config, name) for name in needed}
        sizes |= {name: positive_int(config, name, size) for name, size in defaults.items()}
        if sizes[fields.hidden_size] % sizes[fields.num_heads]:
            raise ValueError(
                f"config.json: {fields.hidden_size}={sizes[fields.hidden_size]} is not a multiple of"
                f" {fields.num_heads}={sizes[fields.num_heads]}"
            )
        return cls(
            fields=fields,
            sizes=sizes,
            activation=from_hidden_act(config.get(fields.activation, "gelu"), fields.activation),
            eps=positive_float(config, "layer_norm_eps", 1e-12) if eps is None else eps,
        )


class PostNorm:
    """Makes the parts of one encoder from its checkpoint."""

    def __init__(
        self,
        config: PostNormConfig,
        checkpoint: Checkpoint,
        precision: Precision,
        *,
        prefixes: Sequence[str],
    ) -> None:
        self.weights = Weights(checkpoint, config.sizes, prefixes)
        self._config = config
        self._precision = precision

    def embeddings(self, *, padding_idx: int | None = None) -> Embeddings:
        """Word, position and, if config.json has a type_vocab_size, token type embeddings.

        padding_idx: positions begin behind it, as RoBERTa counts them.
        """
        hidden, weights = self._config.fields.hidden_size, self.weights
        positions = self._config.sizes["max_position_embeddings"]
        if padding_idx is not None and positions <= padding_idx + 1:
            raise ValueError(
                f"config.json: max_position_embeddings={positions} leaves no position behind that of"
                f" the padding token, {padding_idx}"
            )
        word = weights.matrix("embeddings.word_embeddings", "vocab_size", hidden)
        typed = "type_vocab_size" in self._config.sizes
        return Embeddings(
            self._precision.table(word),
            weights("embeddings.position_embeddings.weight", "max_position_embeddings", hidden),
            weights("embeddings.token_type_embeddings.weight", "type_vocab_size", hidden)
            if typed
            else None,
            self._norm("embeddings.LayerNorm"),
            padding_idx=padding_idx,
        )

    def layers(
        self, stem: str, names: LayerNames, position: Positions | None = None
    ) -> list[TransformerLayer]:
        """The layers stem.0, stem.1, ..."""
        count = self._config.sizes[self._config.fields.num_layers]
        return [self._layer(f"{stem}.{index}", names, position) for index in range(count)]

    def _layer(self, name: str, names: LayerNames, position: Positions | None) -> TransformerLayer:
        hidden, inner, _, heads, _ = self._config.fields
        full = LayerNames(*(f"{name}.{part}" for part in names))
        num_heads = self._config.sizes[heads]
        head_dim = self._config.sizes[hidden] // num_heads
        attention = MultiheadAttention(
            [[self._qkv(full)]],
            self._linear(full.attention_output, hidden, hidden),
            num_heads=num_heads,
            num_kv_heads=num_heads,
            softmax_scale=float(1 / np.sqrt(np.float32(head_dim))),
            position=position,
        )
        feed_forward = FeedForward(
            self._linear(full.up, inner, hidden),
            self._linear(full.down, hidden, inner),
            activation=self._config.activation,
        )
        return TransformerLayer(
            attention,
            None,
            feed_forward,
            Norm.layer(self._norm(full.attention_norm)),
            None,
            Norm.layer(self._norm(full.output_norm)),
        )

    def _qkv(self, names: LayerNames) -> Linear:
        """Query, key and value as one Linear of 3 * hidden_size rows: one GEMM instead of three."""
        hidden = self._config.fields.hidden_size
        parts = (names.query, names.key, names.value)
        return self._precision.linear(
            self.weights.matrix(names.qkv, hidden, hidden, parts=parts),
            np.concatenate([self.weights(f"{part}.bias", hidden) for part in parts]),
        )

    def _linear(self, name: str, out_features: str, in_features: str) -> Linear:
        weight = self.weights.matrix(name, out_features, in_features)
        return self._precision.linear(weight, self.weights(f"{name}.bias", out_features))

    def _norm(self, name: str) -> LayerNorm:
        hidden = self._config.fields.hidden_size
        return LayerNorm(
            self.weights(f"{name}.weight", hidden),
            self.weights(f"{name}.bias", hidden),
            eps=self._config.eps,
        )

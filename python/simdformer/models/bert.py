# SPDX-License-Identifier: Apache-2.0
"""BERT (Devlin et al., 2019, arXiv:1810.04805): learned absolute positions, token types, post-norm.

The tensor names are those of transformers' BertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simdformer._core import (
    Embeddings,
    Encoder,
    EncoderLayer,
    FeedForward,
    LayerNorm,
    Linear,
    SelfAttention,
)
from simdformer.activations import from_hidden_act
from simdformer.checkpoint import Checkpoint, Weights
from simdformer.models.fields import one_of, positive_float, positive_int
from simdformer.precision import FLOAT32, Precision

# Parts of BERT that sentence embeddings do not use: buffers, the pooler and the heads.
_IGNORED = ("embeddings.position_ids", "pooler.", "cls.", "classifier.", "qa_outputs.")


@dataclass(frozen=True)
class BertConfig:
    """The fields of config.json that shape the computation, with transformers' names and defaults."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_act: str
    layer_norm_eps: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> BertConfig:
        """Check config.json. ValueError names the field, what it holds and what it may hold."""
        one_of(config, "position_embedding_type", ["absolute"], "absolute")
        one_of(config, "is_decoder", [False], False)
        self = cls(
            vocab_size=positive_int(config, "vocab_size"),
            hidden_size=positive_int(config, "hidden_size"),
            num_hidden_layers=positive_int(config, "num_hidden_layers"),
            num_attention_heads=positive_int(config, "num_attention_heads"),
            intermediate_size=positive_int(config, "intermediate_size"),
            max_position_embeddings=positive_int(config, "max_position_embeddings"),
            type_vocab_size=positive_int(config, "type_vocab_size", 2),
            hidden_act=from_hidden_act(config.get("hidden_act", "gelu")),
            layer_norm_eps=positive_float(config, "layer_norm_eps", 1e-12),
        )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"config.json: hidden_size={self.hidden_size} is not a multiple of"
                f" num_attention_heads={self.num_attention_heads}"
            )
        return self


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> Encoder:
    """A BERT encoder from config.json and its weights."""
    bert = BertConfig.from_dict(config)
    weights = Weights(checkpoint, asdict(bert), prefixes=("bert.",))
    embeddings = Embeddings(
        precision.table(weights.matrix("embeddings.word_embeddings", "vocab_size", "hidden_size")),
        weights("embeddings.position_embeddings.weight", "max_position_embeddings", "hidden_size"),
        weights("embeddings.token_type_embeddings.weight", "type_vocab_size", "hidden_size"),
        _norm(weights, bert, "embeddings.LayerNorm"),
    )
    layers = [
        _layer(weights, bert, f"encoder.layer.{index}", precision)
        for index in range(bert.num_hidden_layers)
    ]
    weights.refuse_unread(_IGNORED)
    return Encoder(embeddings, layers)


def _layer(weights: Weights, bert: BertConfig, name: str, precision: Precision) -> EncoderLayer:
    hidden, inner = "hidden_size", "intermediate_size"

    def linear(part: str, out_features: str, in_features: str) -> Linear:
        full = f"{name}.{part}"
        weight = weights.matrix(full, out_features, in_features)
        return precision.linear(weight, weights(f"{full}.bias", out_features))

    attention = SelfAttention(
        _qkv(weights, f"{name}.attention.self", precision),
        linear("attention.output.dense", hidden, hidden),
        num_heads=bert.num_attention_heads,
    )
    feed_forward = FeedForward(
        linear("intermediate.dense", inner, hidden),
        linear("output.dense", hidden, inner),
        activation=bert.hidden_act,
    )
    return EncoderLayer(
        attention,
        _norm(weights, bert, f"{name}.attention.output.LayerNorm"),
        feed_forward,
        _norm(weights, bert, f"{name}.output.LayerNorm"),
    )


def _qkv(weights: Weights, name: str, precision: Precision) -> Linear:
    """Query, key and value as one Linear of 3 * hidden_size rows: one GEMM instead of three."""
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    return precision.linear(
        weights.matrix(name, "hidden_size", "hidden_size", parts=parts),
        np.concatenate([weights(f"{part}.bias", "hidden_size") for part in parts]),
    )


def _norm(weights: Weights, bert: BertConfig, name: str) -> LayerNorm:
    return LayerNorm(
        weights(f"{name}.weight", "hidden_size"),
        weights(f"{name}.bias", "hidden_size"),
        eps=bert.layer_norm_eps,
    )

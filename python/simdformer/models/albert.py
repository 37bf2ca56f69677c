# SPDX-License-Identifier: Apache-2.0
"""ALBERT (Lan et al., 2020, arXiv:1909.11942): BERT's layers, but each layer runs several times, and the
embeddings are narrower than the layers.

The tensor names are those of transformers' AlbertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import number_of, positive_int
from simdformer.models.names import FieldNames, LayerNames, Names, Part
from simdformer.models.post_norm import PostNormConfig

NAMES = bert.NAMES._replace(
    layer=LayerNames(
        query=Part("attention.query"),
        key=Part("attention.key"),
        value=Part("attention.value"),
        output=Part("attention.dense"),
        attention_norm="attention.LayerNorm",
        up=Part("ffn"),
        down=Part("ffn_output"),
        feed_forward_norm="full_layer_layer_norm",
    ),
    projection="encoder.embedding_hidden_mapping_in",
    prefixes=("albert.",),
    # Buffers, the pooler and the heads.
    ignored=(
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "pooler.",
        "predictions.",
        "sop_classifier.",
        "classifier.",
        "qa_outputs.",
    ),
    fields=FieldNames(embedding_size="embedding_size"),
)


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint, where layers are in groups."""
    inner = positive_int(config, "inner_group_num", 1)
    stem = "encoder.albert_layer_groups.{}.albert_layers.{}"
    return NAMES._replace(
        layers=tuple(stem.format(*divmod(number, inner)) for number in _order(config))
    )


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    albert = PostNormConfig.from_dict({"hidden_act": "gelu_new", **config}, type_vocab_size=2)
    embedding_dim = positive_int(config, "embedding_size", 128)
    return albert.encoder(embedding_dim=embedding_dim, order=_order(config))


def _order(config: Mapping[str, Any]) -> list[int]:
    """The index of the layer that runs at each step. Groups repeat until there are num_hidden_layers
    steps."""
    layers = number_of(config, "num_hidden_layers")
    groups, inner = (
        number_of(config, name, 1) for name in ("num_hidden_groups", "inner_group_num")
    )
    turns = [int(i / (layers / groups)) for i in range(layers)]  # rounded as in transformers
    return [turn * inner + i for turn in turns for i in range(inner)]

# SPDX-License-Identifier: Apache-2.0
"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT without token types, with other names.

The field and tensor names are those of transformers' DistilBertModel. Sinusoidal positions are stored in the
checkpoint like learned ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.names import FieldNames, LayerNames, Names, Part
from simdformer.models.post_norm import PostNormConfig

FIELDS = FieldNames(
    hidden_size="dim",
    inner_size="hidden_dim",
    num_layers="n_layers",
    num_heads="n_heads",
    activation="activation",
    query_size="dim",
    key_size="dim",
)

NAMES = Names(
    layers="transformer.layer",
    layer=LayerNames(
        qkv="attention.qkv_lin",
        query=Part("attention.q_lin"),
        key=Part("attention.k_lin"),
        value=Part("attention.v_lin"),
        output=Part("attention.out_lin"),
        attention_norm="sa_layer_norm",
        up=Part("ffn.lin1"),
        down=Part("ffn.lin2"),
        feed_forward_norm="output_layer_norm",
    ),
    word="embeddings.word_embeddings",
    position="embeddings.position_embeddings",
    norm="embeddings.LayerNorm",
    prefixes=("distilbert.",),
    # Buffers and the heads.
    ignored=(
        "embeddings.position_ids",
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "pre_classifier.",
        "classifier.",
        "qa_outputs.",
    ),
    fields=FIELDS,
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    # config.json has no field for the epsilon of the norms.
    distilbert = PostNormConfig.from_dict(config, fields=FIELDS, eps=1e-12)
    return distilbert.encoder()

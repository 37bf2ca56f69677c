# SPDX-License-Identifier: Apache-2.0
"""BERT (Devlin et al., 2019, arXiv:1810.04805): learned absolute positions, token types, post-norm.

The tensor names are those of transformers' BertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.post_norm import PostNormConfig

NAMES = Names(
    layers="encoder.layer",
    layer=LayerNames(
        qkv="attention.self",
        query=Part("attention.self.query"),
        key=Part("attention.self.key"),
        value=Part("attention.self.value"),
        output=Part("attention.output.dense"),
        attention_norm="attention.output.LayerNorm",
        up=Part("intermediate.dense"),
        down=Part("output.dense"),
        feed_forward_norm="output.LayerNorm",
    ),
    word="embeddings.word_embeddings",
    position="embeddings.position_embeddings",
    token_type="embeddings.token_type_embeddings",
    norm="embeddings.LayerNorm",
    prefixes=("bert.",),
    # Buffers, the pooler and the heads.
    ignored=("embeddings.position_ids", "pooler.", "cls.", "classifier.", "qa_outputs."),
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    bert = PostNormConfig.from_dict(config, type_vocab_size=2)
    return bert.encoder()

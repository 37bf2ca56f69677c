# SPDX-License-Identifier: Apache-2.0
"""BERT (Devlin et al., 2019, arXiv:1810.04805): learned absolute positions, token types, post-norm.

The tensor names are those of transformers' BertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.post_norm import LayerNames, PostNorm, PostNormConfig

LAYER = LayerNames(
    qkv="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)

# Parts of BERT that sentence embeddings do not use: buffers, the pooler and the heads.
_IGNORED = ("embeddings.position_ids", "pooler.", "cls.", "classifier.", "qa_outputs.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A BERT encoder from config.json and its weights."""
    bert = PostNormConfig.from_dict(config, type_vocab_size=2)
    parts = PostNorm(bert, checkpoint, precision, prefixes=("bert.",))
    embeddings = parts.embeddings()
    layers = parts.layers("encoder.layer", LAYER)
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

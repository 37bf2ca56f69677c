# SPDX-License-Identifier: Apache-2.0
"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT without token types, and names of its own.

The field and tensor names are those of transformers' DistilBertModel. Its sinusoidal positions, where
it has them, are stored like learned ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.post_norm import FieldNames, LayerNames, PostNorm, PostNormConfig

FIELDS = FieldNames(
    hidden_size="dim",
    inner_size="hidden_dim",
    num_layers="n_layers",
    num_heads="n_heads",
    activation="activation",
)

LAYER = LayerNames(
    qkv="attention.qkv_lin",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)

# Parts that sentence embeddings do not use: buffers and the heads.
_IGNORED = (
    "embeddings.position_ids",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "pre_classifier.",
    "classifier.",
    "qa_outputs.",
)


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A DistilBERT encoder from config.json and its weights."""
    # The epsilon of its norms is no field of config.json.
    distilbert = PostNormConfig.from_dict(config, fields=FIELDS, eps=1e-12)
    parts = PostNorm(distilbert, checkpoint, precision, prefixes=("distilbert.",))
    embeddings = parts.embeddings()
    layers = parts.layers("transformer.layer", LAYER)
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

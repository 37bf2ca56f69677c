# SPDX-License-Identifier: Apache-2.0
"""MPNet (Song et al., 2020, arXiv:2004.09297): RoBERTa's positions, and T5's bias for each head and
bucket of distances, of one table for all layers. No token types.

The tensor names are those of transformers' MPNetModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import Positions, TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.functional import t5_relative_bias
from simdformer.models.config_fields import one_of
from simdformer.models.post_norm import LayerNames, PostNorm, PostNormConfig

LAYER = LayerNames(
    qkv="attention.attn.qkv",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)

# Constants of transformers' MPNet: it counts positions from behind 1 whatever pad_token_id is, and
# distances in 32 buckets up to 128.
PADDING_IDX = 1
NUM_BUCKETS = 32
MAX_DISTANCE = 128

# Parts that sentence embeddings do not use: buffers, the pooler and the heads.
_IGNORED = ("embeddings.position_ids", "pooler.", "lm_head.", "classifier.", "qa_outputs.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """An MPNet encoder from config.json and its weights."""
    one_of(config, "relative_attention_num_buckets", [NUM_BUCKETS], NUM_BUCKETS)
    mpnet = PostNormConfig.from_dict(config, relative_attention_num_buckets=NUM_BUCKETS)
    parts = PostNorm(mpnet, checkpoint, precision, prefixes=("mpnet.",))
    embeddings = parts.embeddings(padding_idx=PADDING_IDX)
    table = parts.weights(
        "encoder.relative_attention_bias.weight",
        "relative_attention_num_buckets",
        "num_attention_heads",
    )
    longest = embeddings.max_positions
    bias = t5_relative_bias(table, longest, longest, max_distance=MAX_DISTANCE)
    position = Positions(relative=bias, relative_center=longest - 1)
    layers = parts.layers("encoder.layer", LAYER, position)
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

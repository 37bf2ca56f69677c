# SPDX-License-Identifier: Apache-2.0
"""MPNet (Song et al., 2020, arXiv:2004.09297): RoBERTa's positions, and T5's bias for each head and bucket of
distances, with one table for all layers. It has no token types.

The tensor names are those of transformers' MPNetModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.config_fields import one_of
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.post_norm import PostNormConfig

NAMES = Names(
    layers="encoder.layer",
    layer=LayerNames(
        qkv="attention.attn.qkv",
        query=Part("attention.attn.q"),
        key=Part("attention.attn.k"),
        value=Part("attention.attn.v"),
        output=Part("attention.attn.o"),
        attention_norm="attention.LayerNorm",
        up=Part("intermediate.dense"),
        down=Part("output.dense"),
        feed_forward_norm="output.LayerNorm",
    ),
    word="embeddings.word_embeddings",
    position="embeddings.position_embeddings",
    norm="embeddings.LayerNorm",
    relative="encoder.relative_attention_bias",
    prefixes=("mpnet.",),
    # Buffers, the pooler and the heads.
    ignored=("embeddings.position_ids", "pooler.", "lm_head.", "classifier.", "qa_outputs."),
)

# Constants of transformers' MPNet: positions start after 1 whatever pad_token_id is, and there are 32 buckets
# of distances up to 128.
PADDING_IDX = 1
NUM_BUCKETS = 32
MAX_DISTANCE = 128


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    one_of(config, "relative_attention_num_buckets", [NUM_BUCKETS], NUM_BUCKETS)
    mpnet = PostNormConfig.from_dict(config)
    bias = nn.RelativePositionBias(
        mpnet.num_heads,
        num_buckets=NUM_BUCKETS,
        max_distance=MAX_DISTANCE,
        max_positions=max(1, mpnet.max_positions - PADDING_IDX - 1),
    )
    return mpnet.encoder(padding_idx=PADDING_IDX, position=lambda: bias)

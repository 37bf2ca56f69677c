# SPDX-License-Identifier: Apache-2.0
"""RoBERTa (Liu et al., 2019, arXiv:1907.11692), and XLM-RoBERTa and CamemBERT, which are RoBERTas of
another vocabulary: BERT, with positions that begin behind the padding token's id.

The tensor names are those of transformers' RobertaModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.bert import LAYER
from simdformer.models.config_fields import non_negative_int
from simdformer.models.post_norm import PostNorm, PostNormConfig

# Parts that sentence embeddings do not use: buffers, the pooler and the heads.
_IGNORED = ("embeddings.position_ids", "pooler.", "lm_head.", "classifier.", "qa_outputs.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A RoBERTa encoder from config.json and its weights."""
    roberta = PostNormConfig.from_dict(config, type_vocab_size=2)
    parts = PostNorm(roberta, checkpoint, precision, prefixes=("roberta.",))
    embeddings = parts.embeddings(padding_idx=non_negative_int(config, "pad_token_id", 1))
    layers = parts.layers("encoder.layer", LAYER)
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

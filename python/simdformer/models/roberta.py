# SPDX-License-Identifier: Apache-2.0
"""RoBERTa (Liu et al., 2019, arXiv:1907.11692), and XLM-RoBERTa and CamemBERT, which are RoBERTa with other
vocabularies: BERT with positions that start after the padding token's id.

The tensor names are those of transformers' RobertaModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import non_negative_int
from simdformer.models.post_norm import PostNormConfig

NAMES = bert.NAMES._replace(
    prefixes=("roberta.",),
    # Buffers, the pooler and the heads.
    ignored=("embeddings.position_ids", "pooler.", "lm_head.", "classifier.", "qa_outputs."),
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    roberta = PostNormConfig.from_dict(config, type_vocab_size=2)
    return roberta.encoder(padding_idx=non_negative_int(config, "pad_token_id", 1))

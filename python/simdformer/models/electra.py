# SPDX-License-Identifier: Apache-2.0
"""ELECTRA (Clark et al., 2020, arXiv:2003.10555): BERT's layers; the embeddings may be narrower.

The tensor names are those of transformers' ElectraModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import positive_int
from simdformer.models.names import FieldNames
from simdformer.models.post_norm import PostNormConfig

NAMES = bert.NAMES._replace(
    projection="embeddings_project",
    prefixes=("electra.",),
    # Buffers and the heads.
    ignored=(
        "embeddings.position_ids",
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
        "classifier.",
        "qa_outputs.",
    ),
    fields=FieldNames(embedding_size="embedding_size"),
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    electra = PostNormConfig.from_dict(config, type_vocab_size=2)
    return electra.encoder(embedding_dim=positive_int(config, "embedding_size", 128))

# SPDX-License-Identifier: Apache-2.0
"""The architectures: one declaration a file, chosen by config.json's model_type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models import (
    bert,
    distilbert,
    eurobert,
    gte,
    modernbert,
    mpnet,
    nomic_bert,
    qwen3,
    roberta,
)


class Architecture(Protocol):
    """What a file in this folder offers."""

    def build(
        self,
        config: Mapping[str, Any],
        checkpoint: Checkpoint,
        precision: Precision = FLOAT32,
    ) -> TransformerStack:
        """The encoder that config.json describes, with the checkpoint's weights."""


REGISTRY: dict[str, Architecture] = {
    "bert": bert,
    "camembert": roberta,
    "distilbert": distilbert,
    "eurobert": eurobert,
    "gte": gte,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "nomic_bert": nomic_bert,
    "qwen3": qwen3,
    "roberta": roberta,
    "xlm-roberta": roberta,
}


def build_encoder(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """Build the encoder of a model folder.

    config: the content of config.json. precision: makes layers of its weights.
    Errors: ValueError for a model_type that is not in the registry (it lists those that are), and
    whatever the architecture refuses.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in REGISTRY:
        raise ValueError(
            f"unknown architecture: config.json has model_type={model_type!r};"
            f" known: {', '.join(sorted(REGISTRY))}"
        )
    return REGISTRY[model_type].build(config, checkpoint, precision)

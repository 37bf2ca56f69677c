# SPDX-License-Identifier: Apache-2.0
"""ERNIE (Sun et al., 2020, arXiv:1907.12412): BERT. Models with task embeddings are not supported.

The tensor names are those of transformers' ErnieModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import one_of

NAMES = bert.NAMES._replace(prefixes=("ernie.",))


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes. Errors: ValueError if it has task embeddings."""
    one_of(config, "use_task_id", [False], False)
    return bert.build(config)

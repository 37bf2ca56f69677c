# SPDX-License-Identifier: Apache-2.0
"""GTE as published with its own code (gte-base-en-v1.5, gte-multilingual, stella_en_400M_v5): the layers of
gte.py, under the model_type "new". That code is never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import gte
from simdformer.models.config_fields import one_of

NAMES = gte.NAMES

# Options of that code that no published model uses.
_FIXED = {
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
    "position_embedding_type": "rope",
}


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    for name, value in _FIXED.items():
        one_of(config, name, [value], value)
    return gte.build({"rope_theta": 10000.0, **config})

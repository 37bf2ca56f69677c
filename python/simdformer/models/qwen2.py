# SPDX-License-Identifier: Apache-2.0
"""Qwen2 (Yang et al., 2024, arXiv:2407.10671): Llama's layers with biases of queries, keys and values.

The tensor names are those of transformers' Qwen2Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.rotary import Sizes

NAMES = decoder.NAMES


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the model that config.json describes, without a head."""
    sizes = Sizes.from_dict(config)
    kind = decoder.layer_kind(config, attention_bias=True, output_bias=False)
    return decoder.decoder(config, sizes, kind, decoder.windows(config, sizes.num_layers))

# SPDX-License-Identifier: Apache-2.0
"""Llama (Touvron et al., 2023, arXiv:2302.13971), and models trained from it with bidirectional attention.

The tensor names are those of transformers' LlamaModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import flag
from simdformer.models.rotary import Sizes

NAMES = decoder.NAMES


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the model that config.json describes, without a head."""
    sizes = Sizes.from_dict(config)
    mlp_bias = flag(config, "mlp_bias", False)
    kind = decoder.layer_kind(
        config,
        attention_bias=flag(config, "attention_bias", False),
        up_bias=mlp_bias,
        down_bias=mlp_bias,
    )
    return decoder.decoder(config, sizes, kind, [decoder.window(config)] * sizes.num_layers)

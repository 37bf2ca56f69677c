# SPDX-License-Identifier: Apache-2.0
"""Mistral (Jiang et al., 2023, arXiv:2310.06825): Llama's layers, each with a sliding window.

The tensor names are those of transformers' MistralModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import positive_int
from simdformer.models.rotary import Sizes

NAMES = decoder.NAMES


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the model that config.json describes, without a head."""
    # Missing fields have transformers' defaults; a window of null means none.
    config = {"num_key_value_heads": 8, "sliding_window": 4096, **config}
    sizes = Sizes.from_dict(config)
    near = config["sliding_window"]
    size = None if near is None else positive_int(config, "sliding_window")
    seen = decoder.window(config, size)
    return decoder.decoder(config, sizes, decoder.layer_kind(config), [seen] * sizes.num_layers)

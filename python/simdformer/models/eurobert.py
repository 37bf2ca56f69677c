# SPDX-License-Identifier: Apache-2.0
"""EuroBERT (Boizard et al., 2025, arXiv:2503.05500): a decoder's layers with bidirectional attention.

The tensor names are those of transformers' EuroBertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import flag
from simdformer.models.rotary import EVERYWHERE, Sizes

NAMES = decoder.NAMES._replace(ignored=("lm_head.", "dense.", "classifier."))  # the heads


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    sizes = Sizes.from_dict(config)
    mlp_bias = flag(config, "mlp_bias", False)
    kind = decoder.layer_kind(
        config,
        eps=1e-5,
        attention_bias=flag(config, "attention_bias", False),
        up_bias=mlp_bias,
        down_bias=mlp_bias,
    )
    return decoder.decoder(config, sizes, kind, [EVERYWHERE] * sizes.num_layers)

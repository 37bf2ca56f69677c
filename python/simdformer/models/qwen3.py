# SPDX-License-Identifier: Apache-2.0
"""Qwen3 (Yang et al., 2025, arXiv:2505.09388), which Qwen3-Embedding uses: the hidden states of a causal
decoder with grouped queries, and norms of each head's queries and keys.

The tensor names are those of transformers' Qwen3Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import flag
from simdformer.models.rotary import Sizes

NAMES = decoder.NAMES._replace(
    layer=decoder.NAMES.layer._replace(head_norms=("self_attn.q_norm", "self_attn.k_norm"))
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the model that config.json describes, without a head."""
    # The default of head_dim is 128.
    sizes = Sizes.from_dict({"head_dim": 128, **config})
    mlp_bias = flag(config, "mlp_bias", False)
    kind = decoder.layer_kind(
        config,
        head_norms=True,
        attention_bias=flag(config, "attention_bias", False),
        up_bias=mlp_bias,
        down_bias=mlp_bias,
    )
    return decoder.decoder(config, sizes, kind, decoder.windows(config, sizes.num_layers))

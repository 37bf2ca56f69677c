# SPDX-License-Identifier: Apache-2.0
"""Gemma (Gemma Team, 2024, arXiv:2403.08295): Llama's layers with a factor 1 + w in norms and scaled embeddings.

The tensor names are those of transformers' GemmaModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import flag, one_of
from simdformer.models.rotary import Sizes

NAMES = decoder.NAMES._replace(norm_offset=1.0)

# Defaults of fields in config.json.
_DEFAULTS = {"head_dim": 256, "num_key_value_heads": 16}
_ACTIVATION = "gelu_pytorch_tanh"


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """The model, without a head, that config.json describes."""
    config = _DEFAULTS | dict(config)
    one_of(config, "use_bidirectional_attention", [False, None], None)
    if (
        config.get("hidden_act") == "gelu"
    ):  # as in transformers: the first releases named the wrong one
        config["hidden_act"] = _ACTIVATION
    sizes = Sizes.from_dict(config)
    biases = flag(config, "attention_bias", False)
    kind = decoder.layer_kind(config, activation=("hidden_act", _ACTIVATION), attention_bias=biases)
    seen = [decoder.window(config)] * sizes.num_layers
    return decoder.decoder(config, sizes, kind, seen, word_scale=sizes.hidden_size**0.5)

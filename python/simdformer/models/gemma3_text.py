# SPDX-License-Identifier: Apache-2.0
"""Gemma 3's text model (Gemma Team, 2025, arXiv:2503.19786), which EmbeddingGemma uses: Llama's layers with
norms before and after each sublayer. Most layers have a sliding window; one in several sees all tokens.

The tensor names are those of transformers' Gemma3TextModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import decoder
from simdformer.models.config_fields import flag, one_of, positive_float, positive_int
from simdformer.models.rotary import (
    EVERYWHERE,
    GLOBAL,
    LOCAL,
    Sizes,
    layer_types,
    rope_parameters,
    rope_parameters_of,
    rotary_positions,
)

NAMES = decoder.NAMES._replace(
    layer=decoder.NAMES.layer._replace(
        head_norms=("self_attn.q_norm", "self_attn.k_norm"),
        feed_forward_norm="pre_feedforward_layernorm",
        output_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    norm_offset=1.0,
)

# Defaults of fields that config.json may leave out.
_DEFAULTS = {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096}
# The base of the rotations: the field's name before transformers 5, and its default.
_THETAS = {GLOBAL: ("rope_theta", 1000000.0), LOCAL: ("rope_local_base_freq", 10000.0)}


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the model that config.json describes, without a head."""
    config = _DEFAULTS | dict(config)
    sizes = Sizes.from_dict(config)
    kind = decoder.layer_kind(
        config,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        head_norms=True,
        attention_bias=flag(config, "attention_bias", False),
        output_norm=True,
        scale=positive_float(config, "query_pre_attn_scalar", 256) ** -0.5,
    )
    types = _layer_types(config, sizes.num_layers)
    positions = {
        name: rotary_positions(sizes, _rope_parameters(config, name)) for name in set(types)
    }
    seen = {GLOBAL: _window(config, None), LOCAL: _window(config, "sliding_window")}
    windows = [seen[name] for name in types]
    turned, scale = [positions[name] for name in types], sizes.hidden_size**0.5
    return decoder.decoder(config, sizes, kind, windows, turned, word_scale=scale)


def _layer_types(config: Mapping[str, Any], count: int) -> list[str]:
    """The type of each layer. Without a list, the last of every sliding_window_pattern layers sees all
    tokens."""
    every = positive_int(config, "sliding_window_pattern", 6)
    return layer_types(config, [LOCAL if (i + 1) % every else GLOBAL for i in range(count)])


def _window(config: Mapping[str, Any], field: str | None) -> tuple[int, int]:
    """The number of keys before and after a query that it sees. field: the one with the window's size."""
    size = positive_int(config, field) if field else None
    if not flag(config, "use_bidirectional_attention", False):
        return decoder.window(config, size)
    one_of(config, "is_causal", [True, None], True)  # else the fields disagree
    return EVERYWHERE if size is None else (size // 2, size // 2)


def _rope_parameters(config: Mapping[str, Any], layer_type: str) -> Mapping[str, Any]:
    """Before transformers 5, rope_scaling is only for the layers that see all tokens."""
    field, default = _THETAS[layer_type]
    inner = {
        "rope_scaling": config.get("rope_scaling") if layer_type == GLOBAL else None,
        "rope_parameters": rope_parameters_of(config, layer_type),
    }
    return rope_parameters(inner, positive_float(config, field, default))

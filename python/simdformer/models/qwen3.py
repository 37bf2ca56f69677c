# SPDX-License-Identifier: Apache-2.0
"""Qwen3 (Yang et al., 2025, arXiv:2505.09388) as Qwen3-Embedding uses it: a causal decoder's hidden
states, with grouped queries and norms of each head's queries and keys.

The tensor names are those of transformers' Qwen3Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import (
    flag,
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.rotary import (
    FIELDS,
    GLOBAL,
    LOCAL,
    LayerKind,
    Sizes,
    layer_types,
    rope_parameters,
    rotary_positions,
)

NAMES = Names(
    layers="layers",
    layer=LayerNames(
        query=Part("self_attn.q_proj"),
        key=Part("self_attn.k_proj"),
        value=Part("self_attn.v_proj"),
        output=Part("self_attn.o_proj"),
        gate=Part("mlp.gate_proj"),
        up=Part("mlp.up_proj"),
        down=Part("mlp.down_proj"),
        attention_norm="input_layernorm",
        feed_forward_norm="post_attention_layernorm",
        head_norms=("self_attn.q_norm", "self_attn.k_norm"),
    ),
    word="embed_tokens",
    last_norm="norm",
    prefixes=("model.",),
    ignored=("lm_head.", "score."),  # the heads
    fields=FIELDS,
)

# All keys before a query and its own, none behind it.
BACKWARDS = (-1, 0)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """The model, without a head, that config.json describes."""
    one_of(config, "is_causal", [True, None], True)
    # Where config.json says nothing, a head has 128 features.
    sizes = Sizes.from_dict({"head_dim": 128, **config})
    kind = LayerKind(
        activation=from_hidden_act(config.get("hidden_act", "silu")),
        eps=positive_float(config, "rms_norm_eps", 1e-6),
        norm_first=True,
        rms=True,
        head_norms=True,
        attention_bias=flag(config, "attention_bias", False),
        up_bias=flag(config, "mlp_bias", False),
        down_bias=flag(config, "mlp_bias", False),
    )
    position = rotary_positions(sizes, rope_parameters(config, theta=10000.0))
    return nn.TextEncoder(
        nn.TextEmbeddings(sizes.vocab_size, sizes.hidden_size),
        [kind.layer(sizes, position, window=window) for window in _windows(config, sizes)],
        kind.norm(sizes.hidden_size),
    )


def _windows(config: Mapping[str, Any], sizes: Sizes) -> list[tuple[int, int]]:
    """What each layer's queries see: no key behind them, and in LOCAL layers only sliding_window keys.
    Before transformers 5 those are the last ones, if use_sliding_window says so."""
    first = count = sizes.num_layers
    if flag(config, "use_sliding_window", False):
        first = non_negative_int(config, "max_window_layers", 28)
    types = layer_types(config, [LOCAL if i >= first else GLOBAL for i in range(count)])
    if LOCAL not in types:
        return [BACKWARDS] * count
    near = (positive_int(config, "sliding_window", 4096) - 1, 0)
    return [near if name == LOCAL else BACKWARDS for name in types]

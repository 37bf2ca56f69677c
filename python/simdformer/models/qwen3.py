# SPDX-License-Identifier: Apache-2.0
"""Qwen3 (Yang et al., 2025, arXiv:2505.09388) as Qwen3-Embedding uses it: a causal decoder's hidden
states, with grouped queries and norms of each head's queries and keys.

The tensor names are those of transformers' Qwen3Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import (
    flag,
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)
from simdformer.models.rotary import (
    GLOBAL,
    LOCAL,
    LayerKind,
    LayerNames,
    Part,
    RotaryParts,
    biased,
    layer_types,
    read_sizes,
    rope_parameters,
    rotary_table,
)

LAYER = LayerNames(
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
)

# All keys before a query and its own, none behind it.
BACKWARDS = (-1, 0)

# Parts that sentence embeddings do not use: the heads.
_IGNORED = ("lm_head.", "score.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A Qwen3 model, without a head, from config.json and its weights."""
    one_of(config, "is_causal", [True, None], True)
    # Where config.json says nothing, a head has 128 features.
    sizes = read_sizes({"head_dim": 128, **config})
    kind = LayerKind(
        LAYER,
        activation=from_hidden_act(config.get("hidden_act", "silu")),
        eps=positive_float(config, "rms_norm_eps", 1e-6),
        norm_first=True,
        rms=True,
        biased=biased(config),
    )
    parts = RotaryParts(kind, sizes, checkpoint, precision, prefixes=("model.",))
    embeddings = parts.embeddings("embed_tokens")
    table = rotary_table(sizes, rope_parameters(config, theta=10000.0))
    layers = [
        parts.layer(f"layers.{i}", table, window=window)
        for i, window in enumerate(_windows(config, sizes["num_hidden_layers"]))
    ]
    norm = parts.norm("norm")
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, norm, embeddings)


def _windows(config: Mapping[str, Any], count: int) -> list[tuple[int, int]]:
    """What each layer's queries see: no key behind them, and in LOCAL layers only sliding_window keys.
    Before transformers 5 those are the last ones, if use_sliding_window says so."""
    first = count
    if flag(config, "use_sliding_window", False):
        first = non_negative_int(config, "max_window_layers", 28)
    types = layer_types(config, [LOCAL if i >= first else GLOBAL for i in range(count)])
    if LOCAL not in types:
        return [BACKWARDS] * count
    near = (positive_int(config, "sliding_window", 4096) - 1, 0)
    return [near if name == LOCAL else BACKWARDS for name in types]

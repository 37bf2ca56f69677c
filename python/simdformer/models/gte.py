# SPDX-License-Identifier: Apache-2.0
"""GTE's encoder (Zhang et al., 2024, arXiv:2407.19669): BERT's post-norm layers with rotary positions
and GeGLU.

The tensor names are those of transformers' GteModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import positive_float
from simdformer.models.rotary import (
    LayerKind,
    LayerNames,
    Part,
    RotaryParts,
    read_sizes,
    rope_parameters,
    rotary_table,
)

LAYER = LayerNames(
    query=Part("attention.qkv_proj", (0, 3)),
    key=Part("attention.qkv_proj", (1, 3)),
    value=Part("attention.qkv_proj", (2, 3)),
    output=Part("attention.o_proj"),
    gate=Part("mlp.up_gate_proj", (1, 2)),
    up=Part("mlp.up_gate_proj", (0, 2)),
    down=Part("mlp.down_proj"),
    attention_norm="attn_ln",
    feed_forward_norm="mlp_ln",
)

# Parts that sentence embeddings do not use: the pooler and the heads.
_IGNORED = ("pooler.", "lm_head.", "classifier.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A GTE encoder from config.json and its weights."""
    typed = config.get("type_vocab_size", 1) != 0
    sizes = read_sizes(config, **({"type_vocab_size": 1} if typed else {}))
    kind = LayerKind(
        LAYER,
        activation=from_hidden_act(config.get("hidden_act", "gelu")),
        eps=positive_float(config, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
        biased=frozenset({"query", "key", "value", "output", "down"}),
    )
    parts = RotaryParts(kind, sizes, checkpoint, precision, prefixes=("gte.", "new."))
    embeddings = parts.embeddings(
        "embeddings.word_embeddings",
        token_type="embeddings.token_type_embeddings" if typed else None,
        norm="embeddings.LayerNorm",
    )
    table = rotary_table(sizes, rope_parameters(config, theta=160000.0))
    count = sizes["num_hidden_layers"]
    layers = [parts.layer(f"encoder.layer.{i}", table) for i in range(count)]
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

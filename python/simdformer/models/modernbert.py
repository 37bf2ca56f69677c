# SPDX-License-Identifier: Apache-2.0
"""ModernBERT (Warner et al., 2024, arXiv:2412.13663): pre-norm without biases, rotary positions, GeGLU,
and of every few layers only one that sees more than a window.

The tensor names are those of transformers' ModernBertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import flag, mapping, positive_float, positive_int
from simdformer.models.rotary import (
    EVERYWHERE,
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
    query=Part("attn.Wqkv", (0, 3)),
    key=Part("attn.Wqkv", (1, 3)),
    value=Part("attn.Wqkv", (2, 3)),
    output=Part("attn.Wo"),
    gate=Part("mlp.Wi", (0, 2)),
    up=Part("mlp.Wi", (1, 2)),
    down=Part("mlp.Wo"),
    attention_norm="attn_norm",
    feed_forward_norm="mlp_norm",
)

# Of the rotations: field before transformers 5, and what it is where config.json does not say.
_THETAS = {GLOBAL: ("global_rope_theta", 160000.0), LOCAL: ("local_rope_theta", 10000.0)}

# Parts that sentence embeddings do not use: the heads.
_IGNORED = ("head.", "decoder.", "classifier.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A ModernBERT encoder from config.json and its weights."""
    sizes = read_sizes(config, local_attention=128)
    kind = LayerKind(
        LAYER,
        activation=from_hidden_act(config.get("hidden_activation", "gelu"), "hidden_activation"),
        eps=positive_float(config, "norm_eps", 1e-5),
        norm_first=True,
        norm_bias=flag(config, "norm_bias", False),
        biased=biased(config),
    )
    parts = RotaryParts(kind, sizes, checkpoint, precision, prefixes=("model.",))
    embeddings = parts.embeddings("embeddings.tok_embeddings", norm="embeddings.norm")
    types = _layer_types(config, sizes["num_hidden_layers"])
    tables = {name: rotary_table(sizes, _rope_parameters(config, name)) for name in set(types)}
    near = sizes["local_attention"] // 2
    layers = [
        parts.layer(
            f"layers.{i}",
            tables[name],
            window=(near, near) if name == LOCAL else EVERYWHERE,
            attention_norm=i > 0,  # the embeddings' norm is the first layer's
        )
        for i, name in enumerate(types)
    ]
    norm = parts.norm("final_norm")
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, norm, embeddings)


def _layer_types(config: Mapping[str, Any], count: int) -> list[str]:
    """Before transformers 5: of every global_attn_every_n_layers, the first sees all."""
    every = positive_int(config, "global_attn_every_n_layers", 3)
    return layer_types(config, [LOCAL if i % every else GLOBAL for i in range(count)])


def _rope_parameters(config: Mapping[str, Any], layer_type: str) -> Mapping[str, Any]:
    field, default = _THETAS[layer_type]
    inner = {
        "rope_scaling": config.get("rope_scaling"),
        "rope_parameters": mapping(config, "rope_parameters").get(layer_type),
    }
    return rope_parameters(inner, positive_float(config, field, default))

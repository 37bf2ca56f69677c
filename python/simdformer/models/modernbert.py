# SPDX-License-Identifier: Apache-2.0
"""ModernBERT (Warner et al., 2024, arXiv:2412.13663): pre-norm layers without biases, rotary positions,
GeGLU. Most layers have a sliding window; one in several sees all tokens.

The tensor names are those of transformers' ModernBertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import flag, positive_float, positive_int
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.rotary import (
    EVERYWHERE,
    FIELDS,
    GLOBAL,
    LOCAL,
    LayerKind,
    Sizes,
    layer_types,
    rope_parameters,
    rope_parameters_of,
    rotary_positions,
    without_null,
)

NAMES = Names(
    layers="layers",
    layer=LayerNames(
        query=Part("attn.Wqkv", (0, 3)),
        key=Part("attn.Wqkv", (1, 3)),
        value=Part("attn.Wqkv", (2, 3)),
        output=Part("attn.Wo"),
        gate=Part("mlp.Wi", (0, 2)),
        up=Part("mlp.Wi", (1, 2)),
        down=Part("mlp.Wo"),
        attention_norm="attn_norm",
        feed_forward_norm="mlp_norm",
    ),
    word="embeddings.tok_embeddings",
    norm="embeddings.norm",
    last_norm="final_norm",
    prefixes=("model.",),
    ignored=("head.", "decoder.", "classifier."),  # the heads
    fields=FIELDS,
)

# The base of the rotations: the field's name before transformers 5, and its default.
_THETAS = {GLOBAL: ("global_rope_theta", 160000.0), LOCAL: ("local_rope_theta", 10000.0)}


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    sizes = Sizes.from_dict(config)
    kind = LayerKind(
        activation=from_hidden_act(config.get("hidden_activation", "gelu"), "hidden_activation"),
        eps=positive_float(config, "norm_eps", 1e-5),
        norm_first=True,
        norm_bias=flag(config, "norm_bias", False),
        attention_bias=flag(config, "attention_bias", False),
        up_bias=flag(config, "mlp_bias", False),
        down_bias=flag(config, "mlp_bias", False),
    )
    types = _layer_types(config, sizes.num_layers)
    positions = {
        name: rotary_positions(sizes, _rope_parameters(config, name)) for name in set(types)
    }
    near = positive_int(without_null(config), "local_attention", 128) // 2
    windows = {GLOBAL: EVERYWHERE, LOCAL: (near, near)}
    layers = [kind.layer(sizes, positions[name], window=windows[name]) for name in types]
    layers[0].norm1 = nn.Identity()  # the first layer uses the embeddings' norm
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size, sizes.hidden_size, norm=kind.layer_norm(sizes.hidden_size)
    )
    last_norm = kind.norm(sizes.hidden_size)
    return nn.TextEncoder(embeddings, layers, last_norm)


def _layer_types(config: Mapping[str, Any], count: int) -> list[str]:
    """Before transformers 5, the first of every global_attn_every_n_layers layers sees all tokens."""
    every = positive_int(config, "global_attn_every_n_layers", 3)
    return layer_types(config, [LOCAL if i % every else GLOBAL for i in range(count)])


def _rope_parameters(config: Mapping[str, Any], layer_type: str) -> Mapping[str, Any]:
    field, default = _THETAS[layer_type]
    inner = {
        "rope_scaling": config.get("rope_scaling"),
        "rope_parameters": rope_parameters_of(config, layer_type),
    }
    return rope_parameters(inner, positive_float(config, field, default))

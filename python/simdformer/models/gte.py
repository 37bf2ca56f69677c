# SPDX-License-Identifier: Apache-2.0
"""GTE's encoder (Zhang et al., 2024, arXiv:2407.19669): BERT's post-norm layers with rotary positions and
GeGLU.

The tensor names are those of transformers' GteModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import positive_float, positive_int
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.rotary import (
    FIELDS,
    LayerKind,
    Sizes,
    rope_parameters,
    rotary_positions,
    without_null,
)

NAMES = Names(
    layers="encoder.layer",
    layer=LayerNames(
        query=Part("attention.qkv_proj", (0, 3)),
        key=Part("attention.qkv_proj", (1, 3)),
        value=Part("attention.qkv_proj", (2, 3)),
        output=Part("attention.o_proj"),
        gate=Part("mlp.up_gate_proj", (1, 2)),
        up=Part("mlp.up_gate_proj", (0, 2)),
        down=Part("mlp.down_proj"),
        attention_norm="attn_ln",
        feed_forward_norm="mlp_ln",
    ),
    word="embeddings.word_embeddings",
    token_type="embeddings.token_type_embeddings",
    norm="embeddings.LayerNorm",
    prefixes=("gte.", "new."),
    ignored=("pooler.", "lm_head.", "classifier."),  # the pooler and the heads
    fields=FIELDS,
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    given = without_null(config)
    typed = given.get("type_vocab_size") != 0
    sizes = Sizes.from_dict(config)
    kind = LayerKind(
        activation=from_hidden_act(config.get("hidden_act", "gelu")),
        eps=positive_float(config, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
        attention_bias=True,
        down_bias=True,
    )
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size,
        sizes.hidden_size,
        type_vocab_size=positive_int(given, "type_vocab_size", 1) if typed else None,
        norm=kind.layer_norm(sizes.hidden_size),
    )
    position = rotary_positions(sizes, rope_parameters(config, theta=160000.0))
    layers = [kind.layer(sizes, position) for _ in range(sizes.num_layers)]
    return nn.TextEncoder(embeddings, layers)

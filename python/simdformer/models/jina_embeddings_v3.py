# SPDX-License-Identifier: Apache-2.0
"""Jina embeddings v3 (Sturua et al., 2024, arXiv:2409.10173) without adapters: XLM-RoBERTa's layers with
rotary positions.

The tensor names are those of the published code. transformers' JinaEmbeddingsV3Model saves the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import positive_float, positive_int
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.rotary import FIELDS, LayerKind, Sizes, rope_parameters, rotary_positions

NAMES = Names(
    layers="encoder.layers",
    layer=LayerNames(
        query=Part("mixer.Wqkv", (0, 3)),
        key=Part("mixer.Wqkv", (1, 3)),
        value=Part("mixer.Wqkv", (2, 3)),
        output=Part("mixer.out_proj"),
        up=Part("mlp.fc1"),
        down=Part("mlp.fc2"),
        attention_norm="norm1",
        feed_forward_norm="norm2",
    ),
    word="embeddings.word_embeddings",
    token_type="embeddings.token_type_embeddings",
    norm="emb_ln",
    prefixes=("roberta.",),
    # Buffers, the pooler and the heads.
    ignored=("embeddings.position_ids", "pooler.", "lm_head.", "classifier.", "qa_outputs."),
    fields=FIELDS,
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    sizes = Sizes.from_dict({"max_position_embeddings": 8194, **config})
    kind = LayerKind(
        activation=from_hidden_act(config.get("hidden_act", "gelu")),
        eps=positive_float(config, "layer_norm_eps", 1e-5),
        norm_first=False,
        norm_bias=True,
        attention_bias=True,
        up_bias=True,
        down_bias=True,
        gated=False,
    )
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size,
        sizes.hidden_size,
        type_vocab_size=positive_int(config, "type_vocab_size", 1),
        norm=kind.layer_norm(sizes.hidden_size),
    )
    position = rotary_positions(sizes, rope_parameters(config, theta=20000.0))
    return nn.TextEncoder(
        embeddings, [kind.layer(sizes, position) for _ in range(sizes.num_layers)]
    )

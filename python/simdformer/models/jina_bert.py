# SPDX-License-Identifier: Apache-2.0
"""Jina's BERT (Günther et al., 2023, arXiv:2310.19923): post-norm layers with ALiBi, not positions, and a
gated feed-forward. jina-embeddings-v2 and jina-reranker-v1 were published with code of their own under
model_type "bert"; this file replaces that code, which is never run.

The tensor names are those of the two versions of that code: jina-bert-implementation, and
jina-bert-v2-qk-post-norm, which also normalizes queries, keys and the output of attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import mapping, one_of, positive_float, positive_int
from simdformer.models.names import Names, Part
from simdformer.models.rotary import FIELDS, LayerKind, Sizes

_GATED = bert.NAMES.layer._replace(
    qkv=None,
    gate=Part("mlp.gated_layers", (0, 2)),
    up=Part("mlp.gated_layers", (1, 2)),
    down=Part("mlp.wo"),
    feed_forward_norm="mlp.layernorm",
)
_NORMED = _GATED._replace(
    gate=Part("mlp.up_gated_layer", (1, 2)),
    up=Part("mlp.up_gated_layer", (0, 2)),
    down=Part("mlp.down_layer"),
    head_norms=("attention.self.layer_norm_q", "attention.self.layer_norm_k"),
    output_norms=("attention.output.LayerNorm",),
    attention_norm="layer_norm_1",
    feed_forward_norm="layer_norm_2",
)
NAMES = bert.NAMES._replace(layer=_GATED, fields=FIELDS)

# The activation of the gate for each feed_forward_type.
_ACTIVATIONS = {"geglu": "gelu", "reglu": "relu"}


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint."""
    return NAMES._replace(layer=_NORMED) if _is_normed(config) else NAMES


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    for name, value in {"position_embedding_type": "alibi", "is_decoder": False}.items():
        one_of(config, name, [value], value)
    given = str(one_of(config, "feed_forward_type", list(_ACTIVATIONS), "geglu"))
    sizes, normed = Sizes.from_dict(config), _is_normed(config)
    kind = LayerKind(
        activation=_ACTIVATIONS[given],
        eps=positive_float(config, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
        attention_bias=True,
        down_bias=True,
        head_norms="together" if normed else False,
        output_norm="residual" if normed else False,
    )
    position = nn.ALiBi(sizes.num_heads, max_positions=sizes.max_positions)
    layers = [kind.layer(sizes, position) for _ in range(sizes.num_layers)]
    for layer in layers if normed else ():
        layer.output_norm2 = nn.Identity()  # only of the output of attention
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size,
        sizes.hidden_size,
        type_vocab_size=positive_int(config, "type_vocab_size", 2),
        norm=kind.layer_norm(sizes.hidden_size),
    )
    return nn.TextEncoder(embeddings, layers)


def _is_normed(config: Mapping[str, Any]) -> bool:
    return "qk-post-norm" in str(mapping(config, "auto_map").get("AutoConfig"))

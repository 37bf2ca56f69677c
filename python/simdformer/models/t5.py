# SPDX-License-Identifier: Apache-2.0
"""T5's encoder (Raffel et al., 2020, arXiv:1910.10683): pre-norm layers with RMSNorm, no biases, unscaled
scores, and a bias for each head and bucket of distances, with one table for all layers.

The tensor names are those of transformers' T5EncoderModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import number_of, one_of, positive_float, positive_int
from simdformer.models.names import FieldNames, LayerNames, Names, Part
from simdformer.models.rotary import GATED

# The longest text. transformers has no limit, but the table of biases needs one.
MAX_POSITIONS = 16384

NAMES = Names(
    layers="encoder.block",
    layer=LayerNames(
        query=Part("layer.0.SelfAttention.q"),
        key=Part("layer.0.SelfAttention.k"),
        value=Part("layer.0.SelfAttention.v"),
        output=Part("layer.0.SelfAttention.o"),
        attention_norm="layer.0.layer_norm",
        up=Part("layer.1.DenseReluDense.wi"),
        down=Part("layer.1.DenseReluDense.wo"),
        feed_forward_norm="layer.1.layer_norm",
    ),
    word="shared",
    last_norm="encoder.final_layer_norm",
    relative="encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    prefixes=("transformer.",),
    # The decoder, the heads, and a second copy of the word embeddings.
    ignored=("decoder.", "lm_head.", "classification_head.", "encoder.embed_tokens."),
    fields=FieldNames(
        hidden_size="d_model",
        inner_size="d_ff",
        num_layers="num_layers",
        num_heads="num_heads",
        query_size="num_heads * d_kv",
        key_size="num_heads * d_kv",
        embedding_size="d_model",
    ),
)
_GATED_LAYER = NAMES.layer._replace(
    gate=Part("layer.1.DenseReluDense.wi_0"), up=Part("layer.1.DenseReluDense.wi_1")
)


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint. A gated feed-forward has one more matrix."""
    return NAMES._replace(layer=_GATED_LAYER) if _activation(config)[1] else NAMES


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    one_of(config, "is_decoder", [False], False)
    hidden, inner, head_dim = (positive_int(config, name) for name in ("d_model", "d_ff", "d_kv"))
    heads, eps = (
        number_of(config, "num_heads"),
        positive_float(config, "layer_norm_epsilon", 1e-6),
    )
    name, gated = _activation(config)
    position = nn.RelativePositionBias(
        heads,
        num_buckets=positive_int(config, "relative_attention_num_buckets", 32),
        max_distance=positive_int(config, "relative_attention_max_distance", 128),
        max_positions=MAX_POSITIONS,
    )
    layers = [
        nn.TransformerEncoderLayer(
            hidden,
            heads,
            inner,
            activation=GATED[name] if gated else name,
            layer_norm_eps=eps,
            norm_first=True,
            bias=False,
            norm="rms",
            scale=1.0,
            head_dim=head_dim,
            position=position,
        )
        for _ in range(number_of(config, "num_layers"))
    ]
    words = nn.TextEmbeddings(positive_int(config, "vocab_size"), hidden)
    return nn.TextEncoder(words, layers, nn.RMSNorm(hidden, eps=eps))


def _activation(config: Mapping[str, Any]) -> tuple[str, bool]:
    """The activation's name, and whether it is gated. transformers computes gated-gelu with tanh."""
    given = config.get("feed_forward_proj", "relu")
    if given == "gated-gelu":
        return "gelu_tanh", True
    name = given.removeprefix("gated-") if isinstance(given, str) else given
    return from_hidden_act(name, "feed_forward_proj"), name != given

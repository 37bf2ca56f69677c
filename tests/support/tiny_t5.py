"""A small T5 encoder, listed in tiny_models.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.oracle import rotary as oracle_rotary
from tests.oracle.positions import t5_bias
from tests.support.tiny_architecture import TINY
from tests.support.tiny_rotary import MATRICES, Rotary
from tests.support.tiny_tokenizers import t5_json

BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
NAMES = (
    ("words.", "shared."),
    ("last_norm.", "encoder.final_layer_norm."),
    ("layers.", "encoder.block."),
    *((f".{name}.", f".layer.0.SelfAttention.{name[0]}.") for name in MATRICES[:4]),
    (".gate.", ".layer.1.DenseReluDense.wi_0."),
    (".down.", ".layer.1.DenseReluDense.wo."),
    (".attention_norm.", ".layer.0.layer_norm."),
    (".feed_forward_norm.", ".layer.1.layer_norm."),
)
UNGATED = ((".up.", ".layer.1.DenseReluDense.wi."),)
GATED = ((".up.", ".layer.1.DenseReluDense.wi_1."),)


@dataclass(frozen=True, kw_only=True)
class T5(Rotary):
    """Scores are not scaled; a table of biases is added."""

    @property
    def max_positions(self):
        return 16384

    def fields(self, config=TINY, **changes):
        config = self.sized(config)
        return {
            "d_ff": config.intermediate_size,
            "d_kv": self.head_dim or config.hidden_size // config.num_heads,
            "d_model": config.hidden_size,
            "layer_norm_epsilon": self.eps,
            "model_type": self.model_type,
            "num_heads": config.num_heads,
            "num_layers": config.num_layers,
            "pad_token_id": self.pad_id,
            "vocab_size": config.vocab_size,
            **self.config,
            **changes,
        }

    def weights(self, config=TINY):
        table = np.random.default_rng(2).standard_normal((32, self.sized(config).num_heads))
        return super().weights(config) | {BIAS: table.astype(np.float32)}

    def definition(self, config=TINY):
        table = self.weights(config)[BIAS]
        layer = oracle_rotary.Layer(None, bias=lambda length: t5_bias(table, length), scale=1.0)
        definition = super().definition(config)
        return replace(definition, layers=(layer,) * len(definition.layers))


T5_ENCODER = T5(
    model_type="t5",
    prefix="transformer.",
    heads=("lm_head.weight", "decoder.block.0.layer.0.layer_norm.weight"),
    names=NAMES + UNGATED,
    first_norm="layers.0.attention_norm.weight",
    tokenizer=t5_json,
    pad_token="<pad>",
    eps=1e-6,
    eps_field="layer_norm_epsilon",
    size_fields=("num_layers", "num_heads", "d_model"),
    norm_first=True,
    rms=True,
    words_norm=False,
    activation="relu",
    head_dim=6,
    thetas={"full_attention": 1.0},
    matrices=tuple(name for name in MATRICES if name != "gate"),
)
# for T5 v1.1
GATED_T5 = replace(
    T5_ENCODER,
    names=NAMES + GATED,
    activation="gelu_tanh",
    matrices=MATRICES,
    config={"feed_forward_proj": "gated-gelu"},
)

# SPDX-License-Identifier: Apache-2.0
"""NomicBERT (Nussbaum et al., 2024, arXiv:2402.01613): BERT's post-norm layers with rotary positions,
SwiGLU, and no biases but the norms'.

The tensor names are those of nomic-embed-text, which transformers' NomicBertModel saves too. Fields of
config.json may have its own names, GPT-2's, or transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import one_of, positive_float
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
    query=Part("attn.Wqkv", (0, 3)),
    key=Part("attn.Wqkv", (1, 3)),
    value=Part("attn.Wqkv", (2, 3)),
    output=Part("attn.out_proj"),
    gate=Part("mlp.fc12"),
    up=Part("mlp.fc11"),
    down=Part("mlp.fc2"),
    attention_norm="norm1",
    feed_forward_norm="norm2",
)

# nomic-embed-text's own names of fields.
_GPT2_FIELDS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
# What its code can do and the published models do not.
_FIXED = {
    "activation_function": "swiglu",
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "num_experts": 0,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}

# Parts that sentence embeddings do not use: the pooler and the heads.
_IGNORED = ("pooler.", "cls.", "classifier.", "qa_outputs.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A NomicBERT encoder from config.json and its weights."""
    for name, value in _FIXED.items():
        one_of(config, name, [value, None], value)
    renamed = {_GPT2_FIELDS.get(name, name): value for name, value in config.items()}
    fields = renamed | {n: v for n, v in config.items() if n in _GPT2_FIELDS.values()}
    sizes = read_sizes(fields, type_vocab_size=2)
    kind = LayerKind(
        LAYER,
        activation=from_hidden_act(fields.get("hidden_act", "silu")),
        eps=positive_float(fields, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
    )
    parts = RotaryParts(kind, sizes, checkpoint, precision, prefixes=("nomic_bert.", "bert."))
    embeddings = parts.embeddings(
        "embeddings.word_embeddings", token_type="embeddings.token_type_embeddings", norm="emb_ln"
    )
    table = rotary_table(sizes, rope_parameters(fields, theta=1000.0))
    count = sizes["num_hidden_layers"]
    layers = [parts.layer(f"encoder.layers.{i}", table) for i in range(count)]
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, embeddings=embeddings)

# SPDX-License-Identifier: Apache-2.0
"""NomicBERT (Nussbaum et al., 2024, arXiv:2402.01613): BERT's post-norm layers with rotary positions and
SwiGLU; only the norms have biases.

The tensor names are those of nomic-embed-text, which transformers' NomicBertModel also saves. The fields of
config.json may have nomic-embed-text's names, GPT-2's or transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import one_of, positive_float, positive_int
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
    layers="encoder.layers",
    layer=LayerNames(
        query=Part("attn.Wqkv", (0, 3)),
        key=Part("attn.Wqkv", (1, 3)),
        value=Part("attn.Wqkv", (2, 3)),
        output=Part("attn.out_proj"),
        gate=Part("mlp.fc12"),
        up=Part("mlp.fc11"),
        down=Part("mlp.fc2"),
        attention_norm="norm1",
        feed_forward_norm="norm2",
    ),
    word="embeddings.word_embeddings",
    token_type="embeddings.token_type_embeddings",
    norm="emb_ln",
    prefixes=("nomic_bert.", "bert."),
    ignored=("pooler.", "cls.", "classifier.", "qa_outputs."),  # the pooler and the heads
    fields=FIELDS,
)

# nomic-embed-text's names of fields.
_GPT2_FIELDS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
# Options of its code that no published model uses.
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


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    for name, value in _FIXED.items():
        one_of(config, name, [value, None], value)
    renamed = {_GPT2_FIELDS.get(name, name): value for name, value in config.items()}
    fields = renamed | {n: v for n, v in config.items() if n in _GPT2_FIELDS.values()}
    sizes = Sizes.from_dict(fields)
    kind = LayerKind(
        activation=from_hidden_act(fields.get("hidden_act", "silu")),
        eps=positive_float(fields, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
    )
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size,
        sizes.hidden_size,
        type_vocab_size=positive_int(without_null(fields), "type_vocab_size", 2),
        norm=kind.layer_norm(sizes.hidden_size),
    )
    position = rotary_positions(sizes, rope_parameters(fields, theta=1000.0))
    layers = [kind.layer(sizes, position) for _ in range(sizes.num_layers)]
    return nn.TextEncoder(embeddings, layers)

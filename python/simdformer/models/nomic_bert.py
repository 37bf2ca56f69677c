# SPDX-License-Identifier: Apache-2.0
"""NomicBERT (Nussbaum et al., 2024, arXiv:2402.01613): BERT's post-norm layers with rotary positions and
SwiGLU; only the norms have biases. Version 2 (Nussbaum and Duderstadt, 2025, arXiv:2502.07972) has GELU and
biases, and in every second layer a mixture of experts.

The tensor names are those of nomic-embed-text, which transformers' NomicBertModel also saves, except for
version 2, which it lacks. The fields of config.json may have nomic-embed-text's names, GPT-2's or
transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import (
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)
from simdformer.models.names import ExpertNames, LayerNames, Names, Part
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

_UNGATED = NAMES.layer._replace(
    up=Part("mlp.fc1"),
    down=Part("mlp.fc2"),
    gate=None,
    experts=ExpertNames(
        router="mlp.router.layer",
        up="mlp.experts.mlp.w1",
        down="mlp.experts.mlp.w2",
        bias="mlp.experts.bias",
    ),
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
    "causal": False,
    "expert_choice_router": False,
    "ffn_div": 1,
    "moe_normalize_expert_weights": False,
    "norm_mlp": False,
    "num_shared_experts": 0,
    "parallel_block": False,
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint."""
    return NAMES if _is_gated(config) else NAMES._replace(layer=_UNGATED)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    gated = _is_gated(config)
    biases = dict.fromkeys(("mlp_fc1_bias", "mlp_fc2_bias", "qkv_proj_bias"), not gated)
    for name, value in (_FIXED | biases).items():
        one_of(config, name, [value] if biases.get(name) else [value, None], value)
    renamed = {_GPT2_FIELDS.get(name, name): value for name, value in config.items()}
    fields = renamed | {n: v for n, v in config.items() if n in _GPT2_FIELDS.values()}
    sizes = Sizes.from_dict(fields)
    kind = LayerKind(
        activation=from_hidden_act(fields.get("hidden_act", "silu")) if gated else "gelu",
        eps=positive_float(fields, "layer_norm_eps", 1e-12),
        norm_first=False,
        norm_bias=True,
        attention_bias=not gated,
        up_bias=not gated,
        down_bias=not gated,
        gated=gated,
    )
    embeddings = nn.TextEmbeddings(
        sizes.vocab_size,
        sizes.hidden_size,
        type_vocab_size=positive_int(without_null(fields), "type_vocab_size", 2),
        norm=kind.layer_norm(sizes.hidden_size),
    )
    position = rotary_positions(sizes, rope_parameters(fields, theta=1000.0))
    mixtures = _with_experts(config, sizes)
    layers = [
        kind.layer(sizes, position, experts=_experts(config, sizes) if i in mixtures else None)
        for i in range(sizes.num_layers)
    ]
    return nn.TextEncoder(embeddings, layers)


def _is_gated(config: Mapping[str, Any]) -> bool:
    return one_of(config, "activation_function", ["swiglu", "gelu", None], "swiglu") != "gelu"


def _with_experts(config: Mapping[str, Any], sizes: Sizes) -> range:
    """The layers with a mixture of experts: each n-th, from the second layer on."""
    every = non_negative_int(without_null(config), "moe_every_n_layers", 0)
    if _is_gated(config) or every == 0:
        for name in ("num_experts", "moe_every_n_layers"):
            one_of(config, name, [0, None], 0)
    return range(1, sizes.num_layers, every) if every > 1 else range(0)


def _experts(config: Mapping[str, Any], sizes: Sizes) -> nn.MixtureOfExperts:
    count, top_k = (positive_int(config, name) for name in ("num_experts", "moe_top_k"))
    if top_k > count:
        raise ValueError(f"config.json: moe_top_k={top_k} is larger than num_experts={count}")
    return nn.MixtureOfExperts(sizes.hidden_size, sizes.inner_size, count, top_k)

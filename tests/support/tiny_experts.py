"""A small model of nomic-embed-text-v2-moe's architecture, which transformers lacks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.support.tiny_architecture import TINY
from tests.support.tiny_rotary import ALL, NOMIC_BERT, NOMIC_NAMES, UNGATED, Rotary
from tests.support.tiny_tokenizers import unigram_json

# https://huggingface.co/nomic-ai/nomic-bert-2048/blob/main/modeling_hf_nomic_bert.py
NAMES = (
    *((old, new) for old, new in NOMIC_NAMES if old not in (".gate.", ".up.", ".down.")),
    (".router.", ".mlp.router.layer."),
    (".experts.up", ".mlp.experts.mlp.w1"),
    (".experts.down", ".mlp.experts.mlp.w2"),
    (".experts.bias", ".mlp.experts.bias"),
    (".up.", ".mlp.fc1."),
    (".down.", ".mlp.fc2."),
)


@dataclass(frozen=True, kw_only=True)
class Experts(Rotary):
    """A mixture of experts in every second layer, beginning with the second."""

    num_experts: int
    top_k: int

    def weights(self, config=TINY):
        weights, rng = super().weights(config), np.random.default_rng(1)
        d, inner = config.hidden_size, config.intermediate_size
        for i in range(1, self.num_layers, 2):
            for name in ("up.weight", "up.bias", "down.weight", "down.bias"):
                del weights[f"layers.{i}.{name}"]
            shapes = {
                "router.weight": ((self.num_experts, d), 2 * d**-0.5),
                "experts.up": ((self.num_experts * inner, d), d**-0.5),
                "experts.down": ((self.num_experts * inner, d), inner**-0.5),
                "experts.bias": ((d,), 0.1),
            }
            for name, (shape, scale) in shapes.items():
                numbers = rng.standard_normal(shape) * scale
                weights[f"layers.{i}.{name}"] = numbers.astype(np.float32)
        return weights

    def definition(self, config=TINY):
        return replace(super().definition(config), top_k=self.top_k)

    def fields(self, config=TINY, **changes):
        fields = super().fields(config, **changes)
        return {GPT2_FIELDS.get(name, name): value for name, value in fields.items()}

    def num_parts(self, config):
        mixtures = self.num_layers // 2
        return super().num_parts(config) + 2 * mixtures * (self.num_experts - 1)


GPT2_FIELDS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
NOMIC_EXPERTS = Experts(
    model_type="nomic_bert",
    prefix="nomic_bert.",
    heads=NOMIC_BERT.heads,
    names=NAMES,
    first_norm=NOMIC_BERT.first_norm,
    tokenizer=unigram_json,
    tokenizer_class="XLMRobertaTokenizer",
    pad_token="<pad>",
    eps=1e-5,
    norm_first=False,
    norm_bias=True,
    num_token_types=1,
    num_layers=4,
    layer_types=(ALL,) * 4,
    thetas={ALL: 10000.0},
    matrices=UNGATED,
    biased=UNGATED,
    num_experts=5,
    top_k=2,
    config={
        "activation_function": "gelu",
        "architectures": ["NomicBertModel"],
        "auto_map": {
            "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig"
        },
        "causal": False,
        "expert_choice_router": False,
        "ffn_div": 1,
        "mlp_fc1_bias": True,
        "mlp_fc2_bias": True,
        "moe_every_n_layers": 2,
        "moe_impl": "megablocks",
        "moe_normalize_expert_weights": False,
        "moe_resid_pdrop": 0.0,
        "moe_top_k": 2,
        "num_experts": 5,
        "num_shared_experts": 0,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": True,
        "rotary_emb_base": 10000.0,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "router_aux_loss_coef": 0.1,
        "use_rms_norm": None,
    },
)

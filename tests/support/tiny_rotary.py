"""Small models with rotary positions, listed in tiny_models.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tests.oracle import rotary as oracle_rotary
from tests.oracle.positions import rotary_inv_freq
from tests.support.model_fixtures import tokenizer_json
from tests.support.tiny_architecture import TINY, Architecture
from tests.support.tiny_tokenizers import byte_level_json, unigram_json

ALL, LOCAL = "full_attention", "sliding_attention"

# From the oracle's names to those of the architecture. Equal names are one tensor.
FUSED = ((".query.", ".attn.Wqkv."), (".key.", ".attn.Wqkv."), (".value.", ".attn.Wqkv."))
MODERNBERT_NAMES = (
    ("words.", "embeddings.tok_embeddings."),
    ("words_norm.", "embeddings.norm."),
    ("last_norm.", "final_norm."),
    *FUSED,
    (".output.", ".attn.Wo."),
    (".gate.", ".mlp.Wi."),
    (".up.", ".mlp.Wi."),
    (".down.", ".mlp.Wo."),
    (".attention_norm.", ".attn_norm."),
    (".feed_forward_norm.", ".mlp_norm."),
)
NOMIC_NAMES = (
    ("words.", "embeddings.word_embeddings."),
    ("token_types.", "embeddings.token_type_embeddings."),
    ("words_norm.", "emb_ln."),
    ("layers.", "encoder.layers."),
    *FUSED,
    (".output.", ".attn.out_proj."),
    (".gate.", ".mlp.fc12."),
    (".up.", ".mlp.fc11."),
    (".down.", ".mlp.fc2."),
    (".attention_norm.", ".norm1."),
    (".feed_forward_norm.", ".norm2."),
)
GTE_NAMES = (
    ("words.", "embeddings.word_embeddings."),
    ("token_types.", "embeddings.token_type_embeddings."),
    ("words_norm.", "embeddings.LayerNorm."),
    ("layers.", "encoder.layer."),
    *((old, ".attention.qkv_proj.") for old, _ in FUSED),
    (".output.", ".attention.o_proj."),
    (".gate.", ".mlp.up_gate_proj."),
    (".up.", ".mlp.up_gate_proj."),
    (".down.", ".mlp.down_proj."),
    (".attention_norm.", ".attn_ln."),
    (".feed_forward_norm.", ".mlp_ln."),
)
DECODER_NAMES = (
    ("words.", "embed_tokens."),
    ("last_norm.", "norm."),
    *((f".{name}.", f".self_attn.{name[0]}_proj.") for name in ("query", "key", "value", "output")),
    (".query_norm.", ".self_attn.q_norm."),
    (".key_norm.", ".self_attn.k_norm."),
    *((f".{name}.", f".mlp.{name}_proj.") for name in ("gate", "up", "down")),
    (".attention_norm.", ".input_layernorm."),
    (".feed_forward_norm.", ".post_attention_layernorm."),
)

GEMMA_NAMES = (
    *DECODER_NAMES[:-1],
    (".feed_forward_norm.", ".pre_feedforward_layernorm."),
    (".attention_output_norm.", ".post_attention_layernorm."),
    (".feed_forward_output_norm.", ".post_feedforward_layernorm."),
)

# https://huggingface.co/jinaai/xlm-roberta-flash-implementation, and transformers.
JINA_V3_NAMES = (
    ("words.", "embeddings.word_embeddings."),
    ("token_types.", "embeddings.token_type_embeddings."),
    ("words_norm.", "emb_ln."),
    ("layers.", "encoder.layers."),
    *((old, ".mixer.Wqkv.") for old, _ in FUSED),
    (".output.", ".mixer.out_proj."),
    (".up.", ".mlp.fc1."),
    (".down.", ".mlp.fc2."),
    (".attention_norm.", ".norm1."),
    (".feed_forward_norm.", ".norm2."),
)


MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
UNGATED = tuple(name for name in MATRICES if name != "gate")


@dataclass(frozen=True, kw_only=True)
class Rotary(Architecture):
    """An encoder with rotary positions. Its oracle reads `weights`.

    num_layers, num_heads: instead of those of the config. num_kv_heads, head_dim: if they differ from the
    defaults.
    thetas, inv_freq, window: by type of layer; window is the number of keys that LOCAL layers see.
    matrices: in the order in which those of one tensor are stacked. biased: the matrices with a bias.
    output_norms: of the outputs of sublayers.
    norm_offset, scale, word_scale: as in the oracle; word_scale=True is the square root of the number of
    features.
    """

    config: dict = field(default_factory=dict)
    norm_first: bool
    rms: bool = False
    norm_bias: bool = False
    words_norm: bool = True
    head_norms: bool = False
    norms_together: bool = False
    num_token_types: int = 0
    activation: str = "gelu"
    num_layers: int = TINY.num_layers
    num_heads: int = TINY.num_heads
    num_kv_heads: int | None = None
    head_dim: int | None = None
    layer_types: tuple[str, ...] = (ALL,) * TINY.num_layers
    thetas: dict[str, float]
    inv_freq: Callable = rotary_inv_freq
    window: tuple[int, int] = (-1, -1)
    everywhere: tuple[int, int] = (-1, -1)
    matrices: tuple[str, ...] = MATRICES
    biased: tuple[str, ...] = ()
    output_norms: bool = False
    norm_offset: float = 0.0
    scale: float | None = None
    word_scale: bool = False

    @property
    def max_positions(self):
        return TINY.max_positions

    def sized(self, config):
        changes = {"num_layers": self.num_layers, "num_heads": self.num_heads}
        return replace(super().sized(config), activation=self.activation, **changes)

    def fields(self, config=TINY, **changes):
        config = self.sized(config)
        return {
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "max_position_embeddings": config.max_positions,
            "model_type": self.model_type,
            "num_attention_heads": config.num_heads,
            "num_hidden_layers": config.num_layers,
            "pad_token_id": self.pad_id,
            "vocab_size": config.vocab_size,
            self.eps_field: self.eps,
            **({"type_vocab_size": self.num_token_types} if self.num_token_types else {}),
            **self.config,
            **changes,
        }

    def weights(self, config=TINY):
        config, rng = self.sized(config), np.random.default_rng(0)
        d, w = config.hidden_size, {}
        head_dim = self.head_dim or d // config.num_heads
        queries, keys = (n * head_dim for n in (config.num_heads, self._kv_heads(config)))
        inner = config.intermediate_size
        shapes = {
            "query": (queries, d),
            "key": (keys, d),
            "value": (keys, d),
            "output": (d, queries),
            "gate": (inner, d),
            "up": (inner, d),
            "down": (d, inner),
        }

        def array(*shape, scale):
            return (rng.standard_normal(shape) * scale).astype(np.float32)

        def norm(name, size=d):
            w[f"{name}.weight"] = np.float32(1 - self.norm_offset) + array(size, scale=0.1)
            if self.norm_bias:
                w[f"{name}.bias"] = array(size, scale=0.1)

        w["words.weight"] = array(config.vocab_size, d, scale=0.5)
        if self.num_token_types:
            w["token_types.weight"] = array(self.num_token_types, d, scale=0.5)
        if self.words_norm:
            norm("words_norm")
        for i in range(config.num_layers):
            for name in self.matrices:
                rows, cols = shapes[name]
                w[f"layers.{i}.{name}.weight"] = array(rows, cols, scale=cols**-0.5)
                if name in self.biased:
                    w[f"layers.{i}.{name}.bias"] = array(rows, scale=0.1)
            if self.head_norms:
                norm(f"layers.{i}.query_norm", queries if self.norms_together else head_dim)
                norm(f"layers.{i}.key_norm", keys if self.norms_together else head_dim)
            # With pre-norm, the norm of the embeddings is that of the first layer's attention.
            if i or not (self.norm_first and self.words_norm):
                norm(f"layers.{i}.attention_norm")
            norm(f"layers.{i}.feed_forward_norm")
            if self.output_norms:
                norm(f"layers.{i}.attention_output_norm")
                norm(f"layers.{i}.feed_forward_output_norm")
        if self.norm_first:
            norm("last_norm")
        return w

    def definition(self, config=TINY):
        """The definition that the oracle computes."""
        config = self.sized(config)
        head_dim = self.head_dim or config.hidden_size // config.num_heads
        windows = {ALL: self.everywhere, LOCAL: self.window}
        layers = tuple(
            oracle_rotary.Layer(
                self.inv_freq(head_dim, self.thetas[kind]), windows[kind], scale=self.scale
            )
            for kind in self.layer_types
        )
        return oracle_rotary.Definition(
            layers,
            num_heads=config.num_heads,
            activation=config.activation,
            eps=self.eps,
            norm_first=self.norm_first,
            rms=self.rms,
            norm_offset=self.norm_offset,
            word_scale=config.hidden_size**0.5 if self.word_scale else 1.0,
        )

    def states(self, text, config=TINY, limit=100, definition=None):
        definition = definition or self.definition(config)
        return oracle_rotary.encoder(self.ids(text, limit), self.weights(config), definition)

    def states_of(self, ids, types, config=TINY):
        """The states of ids, whose token types must all be 0."""
        assert not types.any()
        return oracle_rotary.encoder(ids, self.weights(config), self.definition(config))

    def states_of_pairs(self, pairs):
        """Those of pairs, with the ids that the tokenizers library gives."""
        tokenizer = self._tokenizer()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights, definition = self.weights(), self.definition()
        ids = [np.array(tokenizer.encode(*pair).ids) for pair in pairs]
        return [oracle_rotary.encoder(each, weights, definition) for each in ids]

    def _kv_heads(self, config):
        return self.num_kv_heads or config.num_heads


# Windows of 4 keys on either side affect all texts but the shortest.
MODERNBERT = Rotary(
    model_type="modernbert",
    prefix="model.",
    heads=("head.dense.weight", "decoder.bias", "classifier.weight"),
    names=MODERNBERT_NAMES,
    first_norm="words_norm.weight",
    tokenizer=byte_level_json,
    pad_token="<pad>",
    eps=1e-5,
    eps_field="norm_eps",
    norm_first=True,
    num_layers=4,
    layer_types=(ALL, LOCAL, LOCAL, ALL),
    thetas={ALL: 160000.0, LOCAL: 10000.0},
    window=(4, 4),
    config={
        "local_attention": 8,
        "layer_types": [ALL, LOCAL, LOCAL, ALL],
        "rope_parameters": {
            ALL: {"rope_type": "default", "rope_theta": 160000.0},
            LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
)
NOMIC_BERT = Rotary(
    model_type="nomic_bert",
    prefix="nomic_bert.",
    heads=("cls.predictions.bias", "pooler.dense.weight"),
    names=NOMIC_NAMES,
    first_norm="words_norm.weight",
    tokenizer=tokenizer_json,
    norm_first=False,
    norm_bias=True,
    num_token_types=2,
    activation="silu",
    thetas={ALL: 1000.0},
    config={"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
)
GTE = Rotary(
    model_type="gte",
    prefix="gte.",
    heads=("lm_head.bias", "pooler.dense.weight"),
    names=GTE_NAMES,
    first_norm="words_norm.weight",
    tokenizer=unigram_json,
    pad_token="<pad>",
    norm_first=False,
    norm_bias=True,
    num_token_types=1,
    thetas={ALL: 160000.0},
    matrices=("query", "key", "value", "output", "up", "gate", "down"),
    biased=("query", "key", "value", "output", "down"),
    config={"rope_parameters": {"rope_type": "default", "rope_theta": 160000.0}},
)
NEW = replace(
    GTE,
    model_type="new",
    prefix="new.",
    thetas={ALL: 20000.0},
    inv_freq=lambda dim, theta: rotary_inv_freq(dim, 2 * theta) / 2 ** (2 / dim),
    config={"rope_parameters": {"rope_type": "ntk", "factor": 2.0, "rope_theta": 20000.0}},
)
# 6 heads with 12 features; 3 query heads share a key head.
QWEN3 = Rotary(
    model_type="qwen3",
    prefix="model.",
    heads=("lm_head.weight", "score.weight"),
    names=DECODER_NAMES,
    first_norm="layers.0.attention_norm.weight",
    tokenizer=byte_level_json,
    pad_token="<pad>",
    eps=1e-6,
    eps_field="rms_norm_eps",
    norm_first=True,
    rms=True,
    words_norm=False,
    head_norms=True,
    activation="silu",
    num_heads=6,
    num_kv_heads=2,
    head_dim=12,
    thetas={ALL: 1000000.0},
    everywhere=(-1, 0),
    config={
        "head_dim": 12,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
)
EUROBERT = replace(
    QWEN3,
    model_type="eurobert",
    heads=("lm_head.weight", "dense.weight", "classifier.weight"),
    eps=1e-5,
    head_norms=False,
    num_heads=2,
    num_kv_heads=1,
    head_dim=None,
    thetas={ALL: 250000.0},
    everywhere=(-1, -1),
    config={
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 250000.0},
    },
)
LLAMA = replace(EUROBERT, model_type="llama", heads=QWEN3.heads, eps=1e-6, everywhere=(-1, 0))
QWEN2 = replace(LLAMA, model_type="qwen2", biased=MATRICES[:3])
# A window of 5 keys affects all texts but the shortest.
MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    everywhere=(4, 0),
    config={**LLAMA.config, "sliding_window": 5},
)
GEMMA = replace(
    LLAMA,
    model_type="gemma",
    tokenizer_class="PreTrainedTokenizerFast",
    activation="gelu_tanh",
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    norm_offset=1.0,
    word_scale=True,
    config={**LLAMA.config, "head_dim": 6, "num_key_value_heads": 2},
)
# Windows of 4 keys on either side.
GEMMA3 = replace(
    QWEN3,
    model_type="gemma3_text",
    tokenizer_class="PreTrainedTokenizerFast",
    names=GEMMA_NAMES,
    activation="gelu_tanh",
    num_layers=4,
    num_heads=4,
    head_dim=6,
    layer_types=(LOCAL, LOCAL, ALL, LOCAL),
    thetas={ALL: 1000000.0, LOCAL: 10000.0},
    everywhere=(-1, -1),
    window=(4, 4),
    output_norms=True,
    norm_offset=1.0,
    scale=20**-0.5,
    word_scale=True,
    config={
        "head_dim": 6,
        "num_key_value_heads": 2,
        "query_pre_attn_scalar": 20,
        "sliding_window": 8,
        "use_bidirectional_attention": True,
        "layer_types": [LOCAL, LOCAL, ALL, LOCAL],
        "rope_parameters": {
            ALL: {"rope_type": "default", "rope_theta": 1000000.0},
            LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
)
# With rope_parameters by type of layer.
BY_LAYER_TYPE = (MODERNBERT, GEMMA3)
JINA_V3 = Rotary(
    model_type="jina_embeddings_v3",
    tokenizer_class="PreTrainedTokenizerFast",
    prefix="roberta.",
    heads=("lm_head.bias", "pooler.dense.weight", "classifier.dense.weight"),
    buffers=("embeddings.position_ids",),
    names=JINA_V3_NAMES,
    first_norm="words_norm.weight",
    tokenizer=unigram_json,
    pad_token="<pad>",
    eps=1e-5,
    norm_first=False,
    norm_bias=True,
    num_token_types=1,
    thetas={ALL: 20000.0},
    matrices=UNGATED,
    biased=UNGATED,
    config={"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
)
ROTARY = [
    MODERNBERT,
    NOMIC_BERT,
    GTE,
    NEW,
    QWEN3,
    EUROBERT,
    LLAMA,
    QWEN2,
    MISTRAL,
    GEMMA,
    GEMMA3,
    JINA_V3,
]


def without(fields, *names):
    """config.json without some fields."""
    return {name: value for name, value in fields.items() if name not in names}

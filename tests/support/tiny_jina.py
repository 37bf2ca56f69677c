"""Small models of Jina's architectures, like tiny_rotary.py, which lists the one that transformers has. The
others are published with their own code, under the model_type of another architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.oracle import rotary as oracle_rotary
from tests.oracle.positions import alibi_bias
from tests.support.model_fixtures import tokenizer_json
from tests.support.tiny_architecture import TINY
from tests.support.tiny_models import BY_NAME
from tests.support.tiny_rotary import ALL, JINA_V3, Rotary

# https://huggingface.co/jinaai/jina-bert-implementation: act(first half) * second half.
JINA_BERT_NAMES = (
    ("words.", "embeddings.word_embeddings."),
    ("token_types.", "embeddings.token_type_embeddings."),
    ("words_norm.", "embeddings.LayerNorm."),
    ("layers.", "encoder.layer."),
    *((f".{name}.", f".attention.self.{name}.") for name in ("query", "key", "value")),
    (".output.", ".attention.output.dense."),
    (".gate.", ".mlp.gated_layers."),
    (".up.", ".mlp.gated_layers."),
    (".down.", ".mlp.wo."),
    (".attention_norm.", ".attention.output.LayerNorm."),
    (".feed_forward_norm.", ".mlp.layernorm."),
)
# https://huggingface.co/jinaai/jina-bert-v2-qk-post-norm: first half * act(second half).
NORMED_NAMES = (
    *JINA_BERT_NAMES[:8],
    (".gate.", ".mlp.up_gated_layer."),
    (".up.", ".mlp.up_gated_layer."),
    (".down.", ".mlp.down_layer."),
    (".query_norm.", ".attention.self.layer_norm_q."),
    (".key_norm.", ".attention.self.layer_norm_k."),
    (".attention_output_norm.", ".attention.output.LayerNorm."),
    (".attention_norm.", ".layer_norm_1."),
    (".feed_forward_norm.", ".layer_norm_2."),
)


@dataclass(frozen=True, kw_only=True)
class JinaBert(Rotary):
    """ALiBi instead of rotations. normed: the variant with norms of queries, keys and attention."""

    normed: bool = False

    def weights(self, config=TINY):
        weights = super().weights(config)
        return {name: w for name, w in weights.items() if "feed_forward_output_norm" not in name}

    def definition(self, config=TINY):
        heads = self.sized(config).num_heads
        layer = oracle_rotary.Layer(None, bias=lambda length: alibi_bias(heads, length))
        definition = super().definition(config)
        layers = (layer,) * len(definition.layers)
        return replace(definition, layers=layers, output_residual=self.normed)


JINA_BERT = JinaBert(
    model_type="bert",
    prefix="bert.",
    heads=("cls.predictions.bias", "pooler.dense.weight"),
    names=JINA_BERT_NAMES,
    first_norm="words_norm.weight",
    tokenizer=tokenizer_json,
    norm_first=False,
    norm_bias=True,
    num_token_types=2,
    num_heads=5,
    thetas={ALL: 1.0},
    biased=("query", "key", "value", "output", "down"),
    config={
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "auto_map": {
            "AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig"
        },
    },
)
REGLU = replace(
    JINA_BERT, activation="relu", config=JINA_BERT.config | {"feed_forward_type": "reglu"}
)
NORMED_JINA_BERT = replace(
    JINA_BERT,
    names=NORMED_NAMES,
    normed=True,
    head_norms=True,
    norms_together=True,
    output_norms=True,
    matrices=("query", "key", "value", "output", "up", "gate", "down"),
    config=JINA_BERT.config
    | {
        "auto_map": {
            "AutoConfig": "jinaai/jina-bert-v2-qk-post-norm--configuration_bert.JinaBertConfig"
        }
    },
)
FLASH = replace(
    JINA_V3,
    model_type="xlm-roberta",
    config={
        "position_embedding_type": "rotary",
        "rotary_emb_base": 20000.0,
        "auto_map": {
            "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig"
        },
    },
)
# The same code with learned positions, as in jina-reranker-v2: XLM-RoBERTa under other names.
LEARNED = replace(
    BY_NAME["xlm-roberta"],
    names=(
        ("embeddings.LayerNorm", "emb_ln"),
        ("encoder.layer", "encoder.layers"),
        ("attention.self.query", "mixer.Wqkv"),
        ("attention.self.key", "mixer.Wqkv"),
        ("attention.self.value", "mixer.Wqkv"),
        ("attention.output.dense", "mixer.out_proj"),
        ("attention.output.LayerNorm", "norm1"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("output.LayerNorm", "norm2"),
    ),
)
JINA = {"geglu": JINA_BERT, "reglu": REGLU, "normed": NORMED_JINA_BERT, "flash": FLASH}

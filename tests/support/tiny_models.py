"""Small models of every architecture with random weights: folders as saved by transformers, each with a
tokenizer of its family, and the oracle's vectors of texts. This file has BERT's relatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tests import oracle
from tests.oracle.positions import roberta_position_ids, t5_bias
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import config_json, tokenizer_json
from tests.support.tiny_architecture import TEXTS, TINY, WIDE, Architecture
from tests.support.tiny_deberta import DEBERTA_V2
from tests.support.tiny_rotary import ROTARY
from tests.support.tiny_t5 import T5_ENCODER
from tests.support.tiny_tokenizers import (
    byte_level_json,
    camembert_json,
    unigram_json,
    wordpiece_json,
)

__all__ = [
    "ARCHITECTURES",
    "BY_NAME",
    "RELATIVES",
    "RELATIVE_BIAS",
    "ROTARY",
    "TEXTS",
    "TINY",
    "WIDE",
]

# From the names of BERT's tensors to those of the architecture.
DISTILBERT_NAMES = (
    ("encoder.layer", "transformer.layer"),
    ("attention.self.query", "attention.q_lin"),
    ("attention.self.key", "attention.k_lin"),
    ("attention.self.value", "attention.v_lin"),
    ("attention.output.dense", "attention.out_lin"),
    ("attention.output.LayerNorm", "sa_layer_norm"),
    ("intermediate.dense", "ffn.lin1"),
    ("output.dense", "ffn.lin2"),
    ("output.LayerNorm", "output_layer_norm"),
)
MPNET_NAMES = (
    ("attention.self.query", "attention.attn.q"),
    ("attention.self.key", "attention.attn.k"),
    ("attention.self.value", "attention.attn.v"),
    ("attention.output.dense", "attention.attn.o"),
    ("attention.output.LayerNorm", "attention.LayerNorm"),
)
ALBERT_NAMES = (
    ("attention.self.", "attention."),
    ("attention.output.dense", "attention.dense"),
    ("attention.output.LayerNorm", "attention.LayerNorm"),
    ("intermediate.dense", "ffn"),
    (".output.dense", ".ffn_output"),
    (".output.LayerNorm", ".full_layer_layer_norm"),
    ("embeddings_project", "encoder.embedding_hidden_mapping_in"),
)
RELATIVE_BIAS = "encoder.relative_attention_bias.weight"


def roberta_config(config):
    return config_json(config, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def mpnet_config(config):
    fields = roberta_config(config) | {"relative_attention_num_buckets": 32}
    return {name: value for name, value in fields.items() if name != "type_vocab_size"}


def distilbert_config(config):
    return {
        "model_type": "distilbert",
        "activation": config.activation,
        "dim": config.hidden_size,
        "hidden_dim": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "n_heads": config.num_heads,
        "n_layers": config.num_layers,
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "vocab_size": config.vocab_size,
    }


@dataclass(frozen=True, kw_only=True)
class Relative(Architecture):
    """BERT or one of its relatives: a table of positions, and post-norm layers.

    padding_idx: positions start after it. embedding_size: if the tables are narrower.
    """

    config: Callable = config_json
    tokenizer: Callable = tokenizer_json
    num_token_types: int = 0
    padding_idx: int | None = None
    embedding_size: int | None = None
    relative: bool = False
    buffers: tuple[str, ...] = ("embeddings.position_ids",)
    first_norm: str = "embeddings.LayerNorm.weight"

    @property
    def max_positions(self):
        return TINY.max_positions - (0 if self.padding_idx is None else self.padding_idx + 1)

    def num_parts(self, config):
        return super().num_parts(config) + bool(self.embedding_size)

    def fields(self, config=TINY, **changes):
        types = {"type_vocab_size": self.num_token_types} if self.num_token_types else {}
        if self.embedding_size:
            types["embedding_size"] = self.embedding_size
        fields = self.config(self.sized(config)) | types
        return {**fields, "model_type": self.model_type, **changes}

    def weights(self, config=TINY):
        """By BERT's names; the relative bias by its own."""
        weights = random_weights(self.sized(config))
        types = "embeddings.token_type_embeddings.weight"
        weights[types] = weights[types][: self.num_token_types]
        if self.num_token_types == 0:
            del weights[types]
        if self.embedding_size:
            weights |= self._narrow(weights, config.hidden_size)
        if self.relative:
            table = np.random.default_rng(2).standard_normal((32, config.num_heads))
            weights[RELATIVE_BIAS] = table.astype(np.float32)
        return weights

    def oracle_weights(self, config):
        """The number of layers, and the weights in the order in which layers run."""
        return config.num_layers, self.weights(config)

    def _narrow(self, weights, hidden_size):
        """Tables with embedding_size columns, and the projection of their sums."""
        rng, size = np.random.default_rng(3), self.embedding_size
        tables = {name: w[..., :size] for name, w in weights.items() if name.startswith("embed")}
        project = rng.standard_normal((hidden_size, size)) * size**-0.5
        bias = rng.standard_normal(hidden_size) * 0.1
        return tables | {
            "embeddings_project.weight": project.astype(np.float32),
            "embeddings_project.bias": bias.astype(np.float32),
        }

    def states(self, text, config=TINY, limit=100):
        ids = self.ids(text, limit)
        return self.states_of(ids, np.zeros_like(ids), config)

    def states_of(self, ids, types, config=TINY):
        """The states of ids with these token types."""
        num_layers, weights = self.oracle_weights(config)
        cu_seqlens, padding_idx = np.array([0, len(ids)]), self.padding_idx
        positions = None
        if padding_idx is not None:
            positions = roberta_position_ids(ids, cu_seqlens, padding_idx)
        table = weights.get(RELATIVE_BIAS)
        return oracle.bert(
            ids,
            weights,
            cu_seqlens,
            num_layers,
            config.num_heads,
            token_type_ids=types,
            activation=config.activation,
            eps=self.eps,
            positions=positions,
            bias=None if table is None else lambda length: t5_bias(table, length),
        )


@dataclass(frozen=True, kw_only=True)
class Albert(Relative):
    """Repeated layers: each of the `groups` contains `inner` layers."""

    groups: int = 1
    inner: int = 1

    def num_parts(self, config):  # noqa: ARG002
        return 2 + 4 * self.groups * self.inner

    def fields(self, config=TINY, **changes):
        groups = {"num_hidden_groups": self.groups, "inner_group_num": self.inner}
        return super().fields(config, **groups | changes)

    def weights(self, config=TINY):
        """By BERT's names, with the layers' numbers in the checkpoint."""
        return super().weights(replace(config, num_layers=self.groups * self.inner))

    def oracle_weights(self, config):
        """The layers in the order in which they run."""
        weights, turn = self.weights(config), "encoder.layer.{}.".format
        order = [
            i * self.groups // config.num_layers * self.inner + j
            for i in range(config.num_layers)
            for j in range(self.inner)
        ]
        layers = {
            name.replace(turn(number), turn(i)): tensor
            for i, number in enumerate(order)
            for name, tensor in weights.items()
            if turn(number) in name
        }
        return len(order), weights | layers

    def renamed(self, weights):
        """By ALBERT's names."""
        named = {}
        for name, tensor in super().renamed(weights).items():
            stem, _, rest = name.partition("encoder.layer.")
            number, _, own = rest.partition(".")
            if rest:
                group, inner = divmod(int(number), self.inner)
                stem += f"encoder.albert_layer_groups.{group}.albert_layers.{inner}."
            named[stem + own if rest else name] = tensor
        return named


BERT = Relative(
    model_type="bert",
    prefix="bert.",
    heads=("cls.predictions.bias", "pooler.dense.weight"),
    num_token_types=2,
)
ROBERTA = Relative(
    model_type="roberta",
    prefix="roberta.",
    heads=("lm_head.bias", "classifier.dense.weight"),
    config=roberta_config,
    tokenizer=byte_level_json,
    pad_token="<pad>",
    num_token_types=1,
    padding_idx=1,
    eps=1e-5,
)
DISTILBERT = Relative(
    model_type="distilbert",
    prefix="distilbert.",
    heads=("vocab_transform.bias", "pre_classifier.weight"),
    names=DISTILBERT_NAMES,
    config=distilbert_config,
    eps_field=None,
    size_fields=("n_layers", "n_heads", "dim"),
)
MPNET = Relative(
    model_type="mpnet",
    prefix="mpnet.",
    heads=("lm_head.bias", "pooler.dense.weight"),
    names=MPNET_NAMES,
    config=mpnet_config,
    tokenizer=wordpiece_json,
    pad_token="<pad>",
    padding_idx=1,
    eps=1e-5,
    relative=True,
)
ELECTRA = replace(
    BERT,
    model_type="electra",
    prefix="electra.",
    heads=("discriminator_predictions.dense.weight", "classifier.dense.weight"),
    embedding_size=12,
)
ALBERT = Albert(
    model_type="albert",
    prefix="albert.",
    heads=("predictions.bias", "pooler.weight", "sop_classifier.classifier.weight"),
    names=ALBERT_NAMES,
    tokenizer_class="PreTrainedTokenizerFast",
    num_token_types=2,
    embedding_size=12,
)
# Layers in two groups, and several in a group.
ALBERT_KINDS = {
    "two groups": replace(ALBERT, groups=2),
    "two layers a group": replace(ALBERT, groups=2, inner=2),
    "as wide": replace(ALBERT, embedding_size=20),
}
ERNIE = replace(BERT, model_type="ernie", prefix="ernie.")
RELATIVES = [
    BERT,
    ALBERT,
    ELECTRA,
    ERNIE,
    ROBERTA,
    replace(ROBERTA, model_type="xlm-roberta", tokenizer=unigram_json),
    replace(ROBERTA, model_type="camembert", tokenizer=camembert_json, num_token_types=2),
    DISTILBERT,
    MPNET,
]
ARCHITECTURES = [*RELATIVES, DEBERTA_V2, *ROTARY, T5_ENCODER]
BY_NAME = {architecture.model_type: architecture for architecture in ARCHITECTURES}

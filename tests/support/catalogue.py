"""Folders in the form of published models: their keys of config.json, modules and tokenizers, with the sizes and
random weights of a tiny model. tests/data/catalogue.json lists them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from tests import oracle
from tests.support import ROOT, normal
from tests.support.model_fixtures import OLD_TYPES, modules_json, write_dense
from tests.support.tiny_architecture import TINY
from tests.support.tiny_jina import FLASH, JINA_BERT, LEARNED, NORMED_JINA_BERT
from tests.support.tiny_models import BY_NAME
from tests.support.tiny_tokenizers import byte_level_json, unigram_json

CATALOGUE = json.loads((ROOT / "tests/data/catalogue.json").read_text(encoding="utf-8"))
ARCHITECTURES = {
    **BY_NAME,
    "flash": FLASH,
    "flash, learned": LEARNED,
    "jina_bert": JINA_BERT,
    "jina_bert, normed": NORMED_JINA_BERT,
}
TOKENIZERS = {
    "byte level": {"tokenizer": byte_level_json, "tokenizer_class": "RobertaTokenizer"},
    "unigram": {"tokenizer": unigram_json, "tokenizer_class": "XLMRobertaTokenizer"},
}
POOLINGS = {
    "cls": ("pooling_mode_cls_token", lambda states: states[0]),
    "lasttoken": ("pooling_mode_lasttoken", lambda states: states[-1]),
    "mean": ("pooling_mode_mean_tokens", lambda states: states.mean(axis=0)),
}
BARE = {"modules.json": None, "sentence_bert_config.json": None, "1_Pooling/config.json": None}


def family_of(entry):
    return CATALOGUE["families"][entry["family"]]


def architecture_of(entry):
    """The tiny model with the entry's tokenizer."""
    family, config = family_of(entry), entry.get("config", {})
    architecture = ARCHITECTURES[family["architecture"]]
    if kind := entry.get("tokenizer", family.get("tokenizer")):
        architecture = replace(architecture, pad_token="<pad>", **TOKENIZERS[kind])
    if "type_vocab_size" in config:
        architecture = replace(architecture, num_token_types=config["type_vocab_size"])
    return architecture


def fields_of(entry):
    """config.json: the published keys, and the tiny model's sizes."""
    family, sizes = family_of(entry), architecture_of(entry).fields()
    renamed = family.get("renamed", {})
    sizes = {
        renamed.get(name, name): value
        for name, value in sizes.items()
        if name not in family.get("without", ())
    }
    return sizes | family["config"] | entry.get("config", {})


def write_dense_entry(folder, entry):
    """The folder of an embedding model. Returns it, and the weights of its Dense modules."""
    architecture, name = architecture_of(entry), POOLINGS[entry["pooling"]][0]
    count = entry.get("dense", 0)
    kinds = ["Transformer", "Pooling", *["Dense"] * count, *["Normalize"] * entry["normalize"]]
    files = {
        "config.json": fields_of(entry),
        "modules.json": modules_json(kinds, OLD_TYPES),
        "1_Pooling/config.json": {"word_embedding_dimension": TINY.hidden_size, name: True},
        "config_sentence_transformers.json": {"prompts": entry.get("prompts", {})},
    }
    architecture.write(folder, files=files)
    identity = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
    sizes = [(TINY.hidden_size, 32), (32, TINY.hidden_size)][:count]
    return folder, [
        write_dense(folder / f"{i}_Dense", *size, seed=i, **identity)[0]
        for i, size in enumerate(sizes, start=2)
    ]


def vectors_of(entry, dense, texts):
    """The definition's vectors, float64."""
    architecture, pool = architecture_of(entry), POOLINGS[entry["pooling"]][1]
    vectors = np.array([pool(architecture.states(text)) for text in texts])
    for weight in dense:
        vectors = oracle.linear(vectors, weight)
    return oracle.l2_normalize(vectors) if entry["normalize"] else vectors


def head_of(entry):
    """The tensors of a reranker's head: a layer with tanh, and one score."""
    rng, d = np.random.default_rng(3), TINY.hidden_size
    names = {
        "bert": ("bert.pooler.dense", "classifier"),
        "roberta": ("classifier.dense", "classifier.out_proj"),
    }[entry["head"]]
    shapes = {f"{names[0]}.weight": (d, d), f"{names[1]}.weight": (1, d)}
    biases = {f"{names[0]}.bias": (d,), f"{names[1]}.bias": (1,)}
    weights = {name: normal(rng, *shape, scale=d**-0.5) for name, shape in shapes.items()}
    return weights | {name: normal(rng, *shape) for name, shape in biases.items()}


def score_of(head, states):
    """The definition's logit for the states of a pair."""
    (dense, out), (bias, out_bias) = (
        [head[name] for name in head if name.endswith(kind)] for kind in ("weight", "bias")
    )
    return oracle.linear(np.tanh(oracle.linear(states[:1], dense, bias)), out, out_bias)[0, 0]

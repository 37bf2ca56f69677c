"""The inputs of both copies: texts and model folders, written once.

The folder contains texts.json, tiny/NAME and cross/NAME for every architecture, timed/NAME with models large
enough to time, and bert-base/ with random weights of that size. Everything is generated from fixed seeds.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engines.cache import default_model
from worker_process import BENCH

TINY_TEXTS = 40


class Head(NamedTuple):
    """A classification head: its fields in config.json, and the names of its tensors."""

    architecture: str
    dense: str | None
    classifier: str
    norm: str | None = None
    biased: bool = True


HEADS = {
    "albert": Head("AlbertForSequenceClassification", "albert.pooler", "classifier"),
    "eurobert": Head("EuroBertForSequenceClassification", "dense", "classifier"),
    "bert": Head("BertForSequenceClassification", "bert.pooler.dense", "classifier"),
    "electra": Head("ElectraForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "ernie": Head("ErnieForSequenceClassification", "ernie.pooler.dense", "classifier"),
    "roberta": Head("RobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "xlm-roberta": Head(
        "XLMRobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"
    ),
    "camembert": Head(
        "CamembertForSequenceClassification", "classifier.dense", "classifier.out_proj"
    ),
    "deberta-v2": Head("DebertaV2ForSequenceClassification", "pooler.dense", "classifier"),
    "distilbert": Head("DistilBertForSequenceClassification", "pre_classifier", "classifier"),
    "mpnet": Head("MPNetForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "modernbert": Head(
        "ModernBertForSequenceClassification", "head.dense", "classifier", "head.norm", biased=False
    ),
    "nomic_bert": Head(
        "NomicBertForSequenceClassification", "nomic_bert.pooler.dense", "classifier"
    ),
    "gte": Head("GteForSequenceClassification", "gte.pooler.dense", "classifier"),
    "new": Head("NewForSequenceClassification", "new.pooler.dense", "classifier"),
    "qwen3": Head("Qwen3ForSequenceClassification", None, "score", biased=False),
    "qwen2": Head("Qwen2ForSequenceClassification", None, "score", biased=False),
    "gemma": Head("GemmaForSequenceClassification", None, "score", biased=False),
    "gemma3_text": Head("Gemma3TextForSequenceClassification", None, "score", biased=False),
    "jina_embeddings_v3": Head(
        "JinaEmbeddingsV3ForSequenceClassification", "classifier.dense", "classifier.out_proj"
    ),
    "llama": Head("LlamaForSequenceClassification", None, "score", biased=False),
    "mistral": Head("MistralForSequenceClassification", None, "score", biased=False),
}


def write(folder: Path, parts: tuple[str, ...], texts: int = 1024) -> None:
    """Write the named parts. "many" has the given number of texts."""
    # The helpers of the tests do not import simdformer, so the files do not depend on either copy.
    with _importable(BENCH.parent):
        write_texts(folder, texts)
        for part in parts:
            PARTS[part](folder)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def read_texts(folder: Path) -> dict[str, list[str]]:
    """Texts by name: "many" and "tiny" for bits; "short", "mixed", "long", "one" and "one of 512" for
    timing."""
    texts: dict[str, list[str]] = json.loads((folder / "texts.json").read_text())
    return texts


def write_texts(folder: Path, count: int) -> None:
    from tokenizers import Tokenizer

    from texts import make_sets, standard_library_docstrings

    tokenizer = Tokenizer.from_file(str(default_model() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    docstrings = standard_library_docstrings()
    sets = make_sets(docstrings, tokenizer, 256, ("short", "mixed", "long", "one"))
    texts = {name: list(one.texts) for name, one in sets.items()}
    texts["many"] = _of_all_lengths(texts, count)
    texts["tiny"] = ["", "z", *texts["short"][: TINY_TEXTS // 2], *texts["mixed"][:TINY_TEXTS]]
    long = " ".join(texts["long"][:4])
    assert len(tokenizer.encode(long).ids) >= 512
    texts["one of 512"] = [long]
    (folder / "texts.json").write_text(json.dumps(texts))


def _of_all_lengths(texts: dict[str, list[str]], count: int) -> list[str]:
    """`count` different texts: half of them are short, one in 64 is long."""
    long = texts["long"][: max(1, count // 64)]
    short = texts["short"][: count // 2]
    known = {*long, *short}
    rest = [text for text in texts["mixed"] if text not in known]
    many = [*short, *rest, *long][-count:]
    if len(many) < count:
        raise SystemExit(f"there are texts for --texts {len(many)} at most, got {count}")
    return many


def write_tiny(folder: Path) -> None:
    """Every architecture with two widths: one that is no multiple of a vector, and one of several vectors."""
    from tests.support.tiny_models import ARCHITECTURES, TINY, WIDE

    for architecture in ARCHITECTURES:
        for name, config in (("narrow", TINY), ("wide", WIDE)):
            architecture.write(folder / "tiny" / f"{architecture.model_type} {name}", config)


def write_cross(folder: Path) -> None:
    from tests.support.tiny_models import BY_NAME, TINY

    for name, head in HEADS.items():
        architecture = BY_NAME[name]
        encoder = architecture.renamed(architecture.weights())
        weights = {f"{architecture.prefix}{key}": value for key, value in encoder.items()}
        weights |= _head_weights(head, TINY.hidden_size)
        labels = {"id2label": {"0": "a", "1": "b"}, "architectures": [head.architecture]}
        files = {"config.json": architecture.fields(**labels), "modules.json": None}
        architecture.write(folder / "cross" / name, weights=weights, files=files)


def _head_weights(head: Head, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    weights = {f"{head.classifier}.weight": rng.standard_normal((2, size))}
    if head.dense:
        weights[f"{head.dense}.weight"] = rng.standard_normal((size, size)) * size**-0.5
    if head.norm:
        weights[f"{head.norm}.weight"] = 1 + 0.1 * rng.standard_normal(size)
    # ModernBERT's classifier always has a bias, its dense layer none by default.
    if head.dense and head.biased:
        weights[f"{head.dense}.bias"] = 0.1 * rng.standard_normal(size)
    if head.biased or head.norm:
        weights[f"{head.classifier}.bias"] = 0.1 * rng.standard_normal(2)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def write_timed(folder: Path) -> None:
    """A ModernBERT and a Qwen3 with 6 layers of 384 features, and texts of up to 100 letters."""
    from tests.support.tiny_models import BY_NAME, TINY

    config = replace(TINY, hidden_size=384, intermediate_size=1152)
    modernbert = replace(BY_NAME["modernbert"], num_layers=6, num_heads=6)
    types = list(modernbert.config["layer_types"]) + list(modernbert.config["layer_types"])[:2]
    window = {"local_attention": 32, "layer_types": types}
    modernbert = replace(modernbert, config=modernbert.config | window)
    qwen3 = replace(BY_NAME["qwen3"], num_layers=6, num_heads=8, head_dim=64)
    qwen3 = replace(qwen3, config=qwen3.config | {"head_dim": 64})
    for name, architecture in (("modernbert", modernbert), ("qwen3", qwen3)):
        architecture.write(folder / "timed" / name, config)


def write_bert_base(folder: Path) -> None:
    from tests.support.bert_weights import Config, random_weights
    from tests.support.model_fixtures import config_json, write_model

    config = Config(30522, 512, 768, 12, 12, 3072)
    model = folder / "bert-base"
    write_model(model, weights=random_weights(config), files={"config.json": config_json(config)})
    pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    shutil.copy(default_model() / "tokenizer.json", model)


PARTS = {
    "tiny": write_tiny,
    "cross": write_cross,
    "timed": write_timed,
    "bert-base": write_bert_base,
}

"""The adapters of jina-embeddings-v3. One of them is merged when the model is loaded."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.adapted import AdaptedCheckpoint, Adapter
from tests.oracle import rotary as oracle_rotary
from tests.support import assert_same_bits, normal
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_jina import FLASH
from tests.support.tiny_models import BY_NAME, TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

TASKS = ["retrieval.query", "separation", "text-matching"]
RANK, ALPHA = 2, 3
FIELDS = {"lora_adaptations": TASKS, "lora_rank": RANK, "lora_alpha": ALPHA}
FIELDS |= {"load_trained_adapters": True, "task_instructions": dict.fromkeys(TASKS, "")}
MODULES = [
    {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]},
    {"idx": 1, "name": "pooler", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]  # fmt: skip
A, B = "parametrizations.weight.0.lora_A", "parametrizations.weight.0.lora_B"


def is_adapted(name):
    return name.endswith(".weight") and "norm" not in name and "emb_ln" not in name


def adapted_tensors(rng):
    """As stored by the published code: for tables, A and B are exchanged."""
    tensors = {}
    for name, weight in FLASH.renamed(FLASH.weights()).items():
        stem = f"roberta.{name.removesuffix('.weight')}"
        if not is_adapted(name):
            tensors[f"roberta.{name}"] = weight
            continue
        rows, columns = weight.shape
        tensors[f"{stem}.parametrizations.weight.original"] = weight
        shapes = ((RANK, columns), (rows, RANK))
        if "embeddings" in name:
            shapes = ((rows, RANK), (RANK, columns))
        for part, shape in zip((A, B), shapes, strict=True):
            tensors[f"{stem}.{part}"] = normal(rng, len(TASKS), *shape, scale=0.3)
    return tensors


def write(folder, tensors, **fields):
    files = {"config.json": FLASH.fields(**FIELDS | fields)}
    FLASH.write(folder, weights=tensors, files=files)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    return folder


def merged_vectors(tensors, task):
    """The expected vectors, with weights added in float64."""
    own = FLASH.weights()
    together = FLASH.renamed({name: np.full(w.shape, i) for i, (name, w) in enumerate(own.items())})
    merged = {}
    for i, (name, weight) in enumerate(own.items()):
        stored = next(key for key, value in together.items() if i in value.reshape(-1)[::1])
        stem = f"roberta.{stored.removesuffix('.weight')}"
        merged[name] = weight
        if task is None or f"{stem}.{A}" not in tensors:
            continue
        a, b = (tensors[f"{stem}.{part}"][TASKS.index(task)].astype(np.float64) for part in (A, B))
        delta = a @ b if "embeddings" in stored else b @ a
        rows = (together[stored] == i).all(axis=1)
        merged[name] = weight + ALPHA / RANK * delta[rows]
    definition = FLASH.definition()
    states = [oracle_rotary.encoder(FLASH.ids(text), merged, definition) for text in TEXTS]
    return np.array([each.mean(axis=0) for each in states])


@pytest.fixture(scope="module")
def tensors():
    return adapted_tensors(np.random.default_rng(6))


@pytest.mark.parametrize("task", [None, *TASKS])
def test_the_adapter_of_a_task_is_merged_when_loading(tmp_path, tensors, task):
    folder = write(tmp_path / "m", tensors)
    model = SentenceTransformer(folder, model_kwargs={"default_task": task})
    expected = merged_vectors(tensors, task)
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)
    if task is not None:
        assert_same_bits(model.encode(TEXTS, task=task), model.encode(TEXTS))
        assert np.abs(expected - merged_vectors(tensors, None)).max() > 1e-3
    int8 = SentenceTransformer(folder, model_kwargs={"default_task": task}, compute_type="int8")
    cosines = (int8.encode(TEXTS) * expected).sum(axis=1)
    cosines /= np.linalg.norm(int8.encode(TEXTS), axis=1) * np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.998


def test_another_task_than_the_merged_one_is_refused(tmp_path, tensors):
    folder = write(tmp_path / "m", tensors)
    model = SentenceTransformer(folder, model_kwargs={"default_task": "separation"})
    with pytest.raises(
        ValueError, match=r"task='text-matching' is merged when.*'default_task': 'tex"
    ):
        model.encode("a cab", task="text-matching")
    with pytest.raises(
        ValueError, match=r"no route for task='query'; known: 'retrieval.query', 's"
    ):
        model.encode("a cab", task="query")
    with pytest.raises(ValueError, match=r"task='separation' is merged when.*'default_task'"):
        SentenceTransformer(folder).encode("a cab", task="separation")
    copied = copy.deepcopy(model)
    assert_same_bits(copied.encode("a cab", task="separation"), model.encode("a cab"))


def test_a_task_without_an_adapter_is_refused(tmp_path, tensors):
    folder = write(tmp_path / "m", tensors)
    with pytest.raises(ValueError, match=r"unknown default_task 'query'; known: 'retrieval.query'"):
        SentenceTransformer(folder, model_kwargs={"default_task": "query"})
    bert = BY_NAME["bert"].write(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"unknown default_task 'query'; known: None"):
        SentenceTransformer(bert, model_kwargs={"default_task": "query"})


def test_a_quantized_folder_has_no_adapters(tmp_path, tensors):
    folder = write(tmp_path / "m", tensors)
    quantize_model(folder, tmp_path / "saved")
    expected = SentenceTransformer(folder, compute_type="int8").encode(TEXTS)
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(TEXTS), expected)
    with pytest.raises(
        ValueError, match=r"default_task='separation', but .* is quantized, without"
    ):
        SentenceTransformer(tmp_path / "saved", model_kwargs={"default_task": "separation"})


@pytest.mark.parametrize("shape", [(3, 2), (1, RANK, 20), (3, 4, 20), (3, RANK, 21)])
def test_adapters_of_another_shape_are_named(tmp_path, tensors, shape):
    name = f"roberta.encoder.layers.0.mixer.out_proj.{A}"
    folder = write(tmp_path / "m", {**tensors, name: np.ones(shape, np.float32)})
    with pytest.raises(ValueError, match=r"lora_A' and .* which do not fit an adapter of shape"):
        SentenceTransformer(folder, model_kwargs={"default_task": "separation"})


def test_a_transformer_of_another_folders_code_is_refused(tmp_path):
    folder = BY_NAME["bert"].write(tmp_path / "m")
    (folder / "modules.json").write_text(json.dumps(MODULES))
    with pytest.raises(ValueError, match=r"unknown module type 'custom_st.Transformer'"):
        SentenceTransformer(folder)


def test_rows_are_those_of_the_adapted_matrix(tmp_path, tensors):
    name = "roberta.encoder.layers.0.mixer.out_proj.weight"
    with Checkpoint(write(tmp_path / "m", tensors)) as checkpoint:
        adapted = AdaptedCheckpoint(checkpoint, Adapter(1, ALPHA / RANK))
        whole, rows = adapted.read(name), adapted.read_rows(name, range(2, 5))
        plain = AdaptedCheckpoint(checkpoint, Adapter(None, 1)).read_rows(name, range(2, 5))
    assert_same_bits(rows, whole[2:5])
    assert (rows != plain).any()

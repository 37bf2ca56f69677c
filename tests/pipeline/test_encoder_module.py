"""`model.encoder`, the nn.TextEncoder that a folder is loaded as."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer, nn
from simdformer.checkpoint.int8_matrix import Int8Matrix
from tests.support import assert_same_bits
from tests.support.model_fixtures import write_cross_encoder
from tests.support.tiny_models import ARCHITECTURES, BY_NAME, TEXTS, WIDE

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)


@each
def test_a_call_returns_the_input_of_pooling(tmp_path, architecture):
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    ids = architecture.ids("a cab")
    states = model.encode("a cab", output_value="token_embeddings")
    assert_same_bits(model.encoder(ids, [0, len(ids)]), states)


@each
def test_its_parameters_are_those_of_the_file(tmp_path, architecture):
    weights = architecture.weights()
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    if "gemma" in architecture.model_type:  # factors are included in them
        weights["words.weight"] = weights["words.weight"] * np.float32(20**0.5)
        weights = {name: w + np.float32("norm" in name) for name, w in weights.items()}
    distinct = [getattr(owner, name) for owner, name in model.encoder.places().values()]
    found = sum(array.size for array in distinct)
    assert found == sum(array.size for array in weights.values())
    total = sum(float(array.sum(dtype=np.float64)) for array in distinct)
    expected = sum(float(array.sum(dtype=np.float64)) for array in weights.values())
    assert total == pytest.approx(expected, abs=1e-6)


def test_repr_shows_the_structure(tmp_path):
    model = SentenceTransformer(
        BY_NAME["bert"].write(tmp_path / "m", WIDE), compute_type="bfloat16"
    )
    text = repr(model.encoder)
    assert "(self_attn): MultiheadAttention(in_proj_weight=(480, 160) bfloat16" in text
    assert "x TransformerEncoderLayer(" in text


def test_in_int8_a_matrix_consists_of_codes_scales_and_outliers(tmp_path):
    model = SentenceTransformer(BY_NAME["qwen3"].write(tmp_path / "m", WIDE), compute_type="int8")
    matrix = model.encoder.layers[1].self_attn.in_proj_weight
    assert isinstance(matrix, Int8Matrix)
    exact = BY_NAME["qwen3"].weights(WIDE)
    rows = np.concatenate([exact[f"layers.1.{n}.weight"] for n in ("query", "key", "value")])
    steps = 8 if matrix.rotated else 1
    assert np.abs(matrix.float32() - rows).max() < np.abs(rows).max() / 127 * steps


def test_changing_the_module_changes_the_model(tmp_path):
    model = SentenceTransformer(BY_NAME["bert"].write(tmp_path / "m"))
    before = model.encode(TEXTS[0])
    kept = copy.deepcopy(model.encoder)
    model.encoder.layers[0].norm1.eps = 0.5
    assert np.abs(model.encode(TEXTS[0]) - before).max() > 1e-3
    model.encoder.layers[0].norm1.eps = kept.layers[0].norm1.eps
    assert_same_bits(model.encode(TEXTS[0]), before)


def test_a_cross_encoder_has_one_too(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    assert isinstance(model.encoder, nn.TextEncoder)
    before = model.predict([("a", "b")])
    model.encoder.layers[0].linear1.bias = np.ones_like(model.encoder.layers[0].linear1.bias)
    assert (model.predict([("a", "b")]) != before).all()

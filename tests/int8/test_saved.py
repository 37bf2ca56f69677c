"""The contents of a saved folder: tensors with the loaded encoder's names; matrices with the same inputs are
joined."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.folder.model_folder import ModelFolder
from simdformer.int8 import calibration
from simdformer.int8.calibration import quantize_encoder
from tests.support import assert_same_bits, assert_within
from tests.support.tiny_models import ARCHITECTURES, BY_NAME, TEXTS, WIDE

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

WEIGHTS = "model-int8.safetensors"
SUFFIXES = ("", "_scale", "_outliers", "_outlier_weight")
WORDS, GATE_UP = "embeddings.word_embeddings.weight", "gate_up_proj.weight"
each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
gated = pytest.mark.parametrize("model_type", ["modernbert", "nomic_bert", "gte", "qwen3"])


def saved_by_name(folder, name):
    tensors = load_file(folder / WEIGHTS)
    rotated = json.loads((folder / "quantization_config.json").read_text())["rotated"]
    return Int8Matrix(*(tensors[name + suffix] for suffix in SUFFIXES), rotated and name != WORDS)


def assert_same_matrix(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@each
def test_tensors_have_the_names_of_the_encoders_parameters(tmp_path, architecture):
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    encoder = SentenceTransformer(source).encoder
    names = set(encoder.places())  # shared parameters have their first name
    for i, layer in enumerate(encoder.layers):
        if hasattr(layer, "linear_gate"):
            names -= {f"layers.{i}.linear_gate.weight", f"layers.{i}.linear1.weight"}
            names.add(f"layers.{i}.{GATE_UP}")
    parts = json.loads((tmp_path / "saved" / "quantization_config.json").read_text())["parts"]
    assert len(parts) == architecture.num_parts(WIDE)
    names |= {part + suffix for part in parts for suffix in SUFFIXES}
    assert load_file(tmp_path / "saved" / WEIGHTS).keys() == names


@each
def test_every_parameter_is_loaded_as_it_was_quantized(tmp_path, architecture):
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved")
    at_load = SentenceTransformer(source, compute_type="int8")
    saved = SentenceTransformer(tmp_path / "saved")
    assert saved.part_types == at_load.part_types
    found = saved.encoder.state_dict()
    for name, value in at_load.encoder.state_dict().items():
        if isinstance(value, Int8Matrix):
            assert_same_matrix(found[name], value)
        else:
            assert_same_bits(found[name], value)


@gated
def test_gate_and_up_are_one_matrix_with_one_set_of_outliers(tmp_path, model_type):
    architecture = BY_NAME[model_type]
    weights = architecture.weights(WIDE)
    weights[architecture.first_norm][[3, 7, 11]] = 25
    source = architecture.write(tmp_path / "m", WIDE, weights=architecture.renamed(weights))
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    layer = SentenceTransformer(tmp_path / "saved").encoder.layers[0]
    joined = saved_by_name(tmp_path / "saved", f"layers.0.{GATE_UP}")
    inner = WIDE.intermediate_size
    assert_same_matrix(layer.linear_gate.weight, joined.rows(slice(inner)))
    assert_same_matrix(layer.linear1.weight, joined.rows(slice(inner, None)))
    for name, matrix in (("gate", layer.linear_gate.weight), ("up", layer.linear1.weight)):
        exact = weights[f"layers.0.{name}.weight"]
        # Half a step of 1/127, in both directions; if rotated, the sum of eight steps and a half of 2/157.
        steps = 8 * 1.5 * 2 / 157 if joined.rotated else 0.5 * 1.01 / 127
        assert_within(matrix.float32(), exact, np.abs(exact).max() * steps)


@pytest.mark.parametrize(
    ("model_type", "part", "parameters", "planted"),
    [
        (
            "bert",
            "self_attn.in_proj_weight",
            ("self_attn.in_proj_weight",),
            "encoder.layer.1.attention.self.key",
        ),
        ("modernbert", "self_attn.in_proj_weight", ("self_attn.in_proj_weight",), "layers.1.key"),
        ("modernbert", GATE_UP, ("linear_gate.weight", "linear1.weight"), "layers.1.up"),
        ("gte", GATE_UP, ("linear_gate.weight", "linear1.weight"), "layers.1.gate"),
        ("qwen3", GATE_UP, ("linear_gate.weight", "linear1.weight"), "layers.1.up"),
    ],
)
def test_joined_matrices_stay_in_float32_together(
    tmp_path, monkeypatch, model_type, part, parameters, planted
):
    monkeypatch.setattr(calibration, "s8_rotates", lambda: False)  # a rotation helps these columns
    architecture = BY_NAME[model_type]
    weights = architecture.weights(WIDE)
    # Scales that include these columns round the others to zero.
    weights[f"{planted}.weight"][:, ::7] *= 60
    source = architecture.write(tmp_path / "m", WIDE, weights=architecture.renamed(weights))
    worst = quantize_model(source, tmp_path / "all", min_cosine=0).min_cosine
    # A threshold that keeps exactly one part in float32.
    least = 1 - (1 - worst) * 0.9
    quantize_model(source, tmp_path / "saved", min_cosine=least)
    model = SentenceTransformer(tmp_path / "saved")
    name = f"layers.1.{part}"
    assert model.part_types[name] == "float32"
    exact = SentenceTransformer(source).encoder.state_dict()
    tensors = load_file(tmp_path / "saved" / WEIGHTS)
    assert_same_bits(tensors[name], np.concatenate([exact[f"layers.1.{p}"] for p in parameters]))
    assert f"{name}_scale" not in tensors
    folder = ModelFolder(source)
    with folder.checkpoint() as checkpoint:
        encoder = quantize_encoder(folder.encoder(checkpoint), min_cosine=least).encoder
    ids = architecture.ids(TEXTS[0])
    expected = encoder(ids, [0, len(ids)])
    assert_same_bits(model.encode(TEXTS[0], output_value="token_embeddings"), expected)


def test_word_embeddings_are_quantized_by_rows(tmp_path):
    source = BY_NAME["modernbert"].write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved")
    table = SentenceTransformer(tmp_path / "saved").encoder.embeddings.word_embeddings.weight
    assert_same_bits(table, saved_by_name(tmp_path / "saved", WORDS).widened())

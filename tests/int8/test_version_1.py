"""A folder in version 1 of the format, as written by the first release: each projection is a part."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.int8 import calibration
from tests import oracle
from tests.support import ROOT, assert_same_bits
from tests.support.int8_version_1 import DECLARATION, KINDS, WEIGHTS, write_version_1
from tests.support.tiny_models import ARCHITECTURES, WIDE
from tests.support.tiny_rotary import GTE, MODERNBERT, NOMIC_BERT

FOLDER = ROOT / "tests" / "data" / "int8_version_1"
TEXTS = ["a cab", "deed", "z"]


@pytest.fixture(autouse=True)
def unrotated(monkeypatch):
    """Version 1 has no rotated weights."""
    monkeypatch.setattr(calibration, "s8_rotates", lambda: False)


def test_its_codes_scales_and_outliers_are_loaded_as_they_are():
    saved = load_file(FOLDER / WEIGHTS)
    layers = SentenceTransformer(FOLDER).encoder.layers
    for i, layer in enumerate(layers):
        attention, stem = layer.self_attn, f"layers.{i}"
        for name, matrix in (
            ("attn.Wqkv.query", attention.q_proj_weight),
            ("attn.Wqkv.key", attention.k_proj_weight),
            ("attn.Wqkv.value", attention.v_proj_weight),
            ("attn.Wo", attention.out_proj.weight),
            ("mlp.Wi.gate", layer.linear_gate.weight),
            ("mlp.Wi.up", layer.linear1.weight),
            ("mlp.Wo", layer.linear2.weight),
        ):
            for kind, found in zip(KINDS, matrix[:4], strict=True):
                np.testing.assert_array_equal(found, saved[f"{stem}.{name}.{kind}"])


def test_its_vectors_are_as_near_to_float32_as_it_declares(active_isa):  # noqa: ARG001
    found = SentenceTransformer(FOLDER).encode(TEXTS)
    a, b = (oracle.l2_normalize(np.asarray(x)) for x in (found, MODERNBERT.pooled(TEXTS)))
    declared = json.loads((FOLDER / DECLARATION).read_text())
    assert declared["version"] == 1
    assert 1 - 1e-9 > (a * b).sum(-1).min() >= 0.999


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.model_type)
def test_the_old_format_has_the_bits_of_the_new_one_for_each_architecture(tmp_path, architecture):
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    old = write_version_1(tmp_path / "old", tmp_path / "saved", source)
    found = SentenceTransformer(old)
    assert set(found.part_types.values()) == {"int8"}
    assert_same_bits(found.encode(TEXTS), SentenceTransformer(tmp_path / "saved").encode(TEXTS))


@pytest.mark.parametrize(
    ("architecture", "tensor", "part", "own"),
    [
        (MODERNBERT, "layers.1.attn.Wqkv", "key", "self_attn.k_proj_weight"),
        (MODERNBERT, "layers.1.mlp.Wi", "up", "linear1.weight"),
        (NOMIC_BERT, "encoder.layers.1.attn.Wqkv", "value", "self_attn.v_proj_weight"),
        (GTE, "encoder.layer.1.mlp.up_gate_proj", "gate", "linear_gate.weight"),
    ],
)
def test_a_single_projection_may_stay_in_float32(tmp_path, architecture, tensor, part, own):
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    before = SentenceTransformer(tmp_path / "saved").encode(TEXTS)
    folder = write_version_1(tmp_path / "old", tmp_path / "saved", source)
    saved, name = load_file(folder / WEIGHTS), f"{tensor}.{part}"
    for kind in KINDS:
        del saved[f"{name}.{kind}"]
    saved[f"{tensor}.weight"] = load_file(source / "model.safetensors")[f"{tensor}.weight"]
    save_file(saved, folder / WEIGHTS)
    declared = json.loads((folder / DECLARATION).read_text())
    declared["parts"][name]["compute_type"] = "float32"
    (folder / DECLARATION).write_text(json.dumps(declared))
    model = SentenceTransformer(folder)
    found = model.encoder.state_dict()[f"layers.1.{own}"]
    assert_same_bits(found, architecture.weights(WIDE)[f"layers.1.{part}.weight"])
    assert isinstance(model.encoder.layers[1].self_attn.q_proj_weight, Int8Matrix)
    assert 0 < np.abs(model.encode(TEXTS) - before).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_it_lacks_is_named(tmp_path, kind):
    folder = tmp_path / "old"
    shutil.copytree(FOLDER, folder)
    tensors, name = load_file(folder / WEIGHTS), f"layers.0.mlp.Wi.gate.{kind}"
    del tensors[name]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=f"'{name}' is missing from the checkpoint"):
        SentenceTransformer(folder)

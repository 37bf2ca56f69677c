"""A folder of the format's version 1, as the first release wrote it: each projection is a part."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load_file

from simdformer import SentenceTransformer
from tests import oracle
from tests.support import ROOT
from tests.support.tiny_rotary import MODERNBERT

FOLDER = ROOT / "tests" / "data" / "int8_version_1"
TEXTS = ["a cab", "deed", "z"]


def test_its_codes_scales_and_outliers_are_loaded_as_they_are():
    saved = load_file(FOLDER / "model-int8.safetensors")
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
            kinds = ("weight", "weight_scale", "outliers", "outlier_weight")
            for kind, found in zip(kinds, matrix, strict=True):
                np.testing.assert_array_equal(found, saved[f"{stem}.{name}.{kind}"])


def test_its_vectors_are_as_near_to_float32_as_it_declares(active_isa):  # noqa: ARG001
    found = SentenceTransformer(FOLDER).encode(TEXTS)
    a, b = (oracle.l2_normalize(np.asarray(x)) for x in (found, MODERNBERT.pooled(TEXTS)))
    declared = json.loads((FOLDER / "quantization_config.json").read_text())
    assert declared["version"] == 1
    assert 1 - 1e-9 > (a * b).sum(-1).min() >= 0.999

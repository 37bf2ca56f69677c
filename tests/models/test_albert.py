"""ALBERT's shared layers, in addition to the tests of all architectures."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from simdformer import SentenceTransformer, quantize_model
from tests.support import assert_same_bits
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import ALBERT_KINDS, BY_NAME, TEXTS, WIDE

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")
ALBERT = BY_NAME["albert"]


@pytest.mark.parametrize("kind", ALBERT_KINDS)
def test_its_variants_follow_the_oracle(tmp_path, kind):
    architecture = ALBERT_KINDS[kind]
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    np.testing.assert_allclose(model.encode(TEXTS), architecture.pooled(TEXTS), **CLOSE)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_a_repeated_layer_is_one_module(tmp_path, compute_type):
    model = SentenceTransformer(ALBERT.write(tmp_path / "m"), compute_type=compute_type)
    first, second = model.encoder.layers
    assert first is second
    assert first.native() is second.native()


@pytest.mark.parametrize("kind", ALBERT_KINDS)
@pytest.mark.parametrize("texts", [None, TEXTS])
def test_a_shared_layer_is_saved_once_in_int8(tmp_path, kind, texts):
    folder = ALBERT_KINDS[kind].write(tmp_path / "m")
    report = quantize_model(folder, tmp_path / "saved", texts=texts)
    names = load_file(tmp_path / "saved" / "model-int8.safetensors")
    layers = {name.split(".")[1] for name in names if name.startswith("layers.")}
    assert len(layers) == ALBERT_KINDS[kind].groups * ALBERT_KINDS[kind].inner
    assert len(report.parts) == ALBERT_KINDS[kind].num_parts(None)
    saved = SentenceTransformer(tmp_path / "saved")
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    assert (saved.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1).min() > 0.997
    if texts is None:
        at_load = SentenceTransformer(folder, compute_type="int8")
        assert_same_bits(saved.encode(TEXTS), at_load.encode(TEXTS))


def test_parts_of_a_shared_layer_can_stay_in_float32(tmp_path):
    folder = ALBERT.write(tmp_path / "m", WIDE)
    quantize_model(folder, tmp_path / "saved", min_cosine=0.99999)
    saved = SentenceTransformer(tmp_path / "saved")
    assert "float32" in saved.part_types.values()
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    assert (saved.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("num_hidden_groups", 2, "albert_layer_groups.1.albert_layers.0.* is missing"),
        ("inner_group_num", 0, "inner_group_num must be an int in 1"),
        ("embedding_size", 20, r"word_embeddings.weight' .*embedding_size=20\) needs"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, field, value, match):
    files = {"config.json": ALBERT.fields(**{field: value})}
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(ALBERT.write(tmp_path / "m", files=files))

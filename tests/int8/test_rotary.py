"""Int8 parts that lie in one tensor of the checkpoint: each is quantised, kept and saved by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint.precision import Int8Matrix
from simdformer.folder.loading import load_float32
from simdformer.folder.model_folder import ModelFolder
from simdformer.int8.calibration import quantize_encoder
from tests.support import assert_same_bits, assert_within
from tests.support.tiny_models import TEXTS, WIDE
from tests.support.tiny_rotary import GTE, MODERNBERT, NOMIC_BERT

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")

WEIGHTS = "model-int8.safetensors"
# Each architecture whose tensors hold several parts, and one such tensor with the oracle's names of these.
FUSED = [
    (MODERNBERT, "layers.1.attn.Wqkv", "layers.1", ("query", "key", "value")),
    (MODERNBERT, "layers.1.mlp.Wi", "layers.1", ("gate", "up")),
    (NOMIC_BERT, "encoder.layers.1.attn.Wqkv", "layers.1", ("query", "key", "value")),
    (GTE, "encoder.layer.1.attention.qkv_proj", "layers.1", ("query", "key", "value")),
    (GTE, "encoder.layer.1.mlp.up_gate_proj", "layers.1", ("up", "gate")),
]
each = pytest.mark.parametrize(
    ("architecture", "tensor", "layer", "parts"), FUSED, ids=[tensor for _, tensor, _, _ in FUSED]
)


def with_one_part_to_keep(architecture, layer, part):
    """Weights of which this part loses most: scales that reach its large columns round the others
    to nothing."""
    weights = architecture.weights(WIDE)
    weights[f"{layer}.{part}.weight"][:, ::7] *= 60
    return architecture.renamed(weights)


@each
def test_a_part_has_a_name_of_its_own(tmp_path, architecture, tensor, layer, parts):
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    saved = load_file(tmp_path / "saved" / WEIGHTS)
    assert f"{tensor}.weight" not in saved
    original = architecture.weights(WIDE)
    for part in parts:
        matrix = Int8Matrix(
            *(saved[f"{tensor}.{part}.{name}"] for name in ("weight", "weight_scale")),
            *(saved[f"{tensor}.{part}.{name}"] for name in ("outliers", "outlier_weight")),
        )
        exact = original[f"{layer}.{part}.weight"]
        # Half a step of 127 to either side of 0.
        assert_within(matrix.widened(), exact, np.abs(exact).max() / 127 / 2 * 1.01)


@each
def test_what_is_packed_as_one_is_kept_together(tmp_path, architecture, tensor, layer, parts):
    weights = with_one_part_to_keep(architecture, layer, parts[1])
    source = architecture.write(tmp_path / "m", WIDE, weights=weights)
    worst = quantize_model(source, tmp_path / "all", min_cosine=0).min_cosine
    # So near that it takes one part, and not a second.
    least = 1 - (1 - worst) * 0.9
    quantize_model(source, tmp_path / "saved", min_cosine=least)
    model = SentenceTransformer(tmp_path / "saved")
    kept = {name for name, kind in model.part_types.items() if kind == "float32"}
    assert kept >= {f"{tensor}.{part}" for part in parts}
    saved = load_file(tmp_path / "saved" / WEIGHTS)
    assert_same_bits(saved[f"{tensor}.weight"], weights[f"{tensor}.weight"])
    assert not any(f"{tensor}.{part}.weight" in saved for part in parts)
    folder = ModelFolder(source)
    with folder.checkpoint() as checkpoint:
        encoder = load_float32(folder, checkpoint)[0]
    encoder = quantize_encoder(encoder, min_cosine=least).encoder
    ids = architecture.ids(TEXTS[0])
    expected = encoder(ids, [0, len(ids)])
    assert_same_bits(model.encode(TEXTS[0], output_value="token_embeddings"), expected)


@each
def test_a_folder_may_keep_a_part_alone(tmp_path, architecture, tensor, layer, parts):
    """As they once were: each projection was its own part."""
    source = architecture.write(tmp_path / "m", WIDE)
    quantize_model(source, tmp_path / "saved", min_cosine=0)
    path, declaration = (tmp_path / "saved" / n for n in (WEIGHTS, "quantization_config.json"))
    before = SentenceTransformer(tmp_path / "saved").encode(TEXTS)
    saved, name = load_file(path), f"{tensor}.{parts[1]}"
    for kind in ("weight", "weight_scale", "outliers", "outlier_weight"):
        del saved[f"{name}.{kind}"]
    saved[f"{tensor}.weight"] = load_file(source / "model.safetensors")[f"{tensor}.weight"]
    save_file(saved, path)
    declared = json.loads(declaration.read_text())
    declared["parts"][name]["compute_type"] = "float32"
    declaration.write_text(json.dumps(declared))
    model = SentenceTransformer(tmp_path / "saved")
    attention, index = model.encoder.layers[1].self_attn, ("query", "key", "value")
    if parts[1] in index:
        assert isinstance(attention.q_proj_weight, Int8Matrix)
        own = attention.k_proj_weight
    else:
        own = getattr(
            model.encoder.layers[1], {"gate": "linear_gate", "up": "linear1"}[parts[1]]
        ).weight
    assert_same_bits(own, architecture.weights(WIDE)[f"{layer}.{parts[1]}.weight"])
    assert 0 < np.abs(model.encode(TEXTS) - before).max() < 0.1

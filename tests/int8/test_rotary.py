"""Int8 parts that lie in one tensor of the checkpoint: each is quantised, kept and saved by itself."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file

from simdformer import SentenceTransformer, quantize_model
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import Int8Matrix
from simdformer.int8.calibration import quantize_encoder
from simdformer.models import build_encoder
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
def test_a_tensor_stays_as_long_as_one_of_its_parts_is_kept(
    tmp_path, architecture, tensor, layer, parts
):
    weights = with_one_part_to_keep(architecture, layer, parts[1])
    source = architecture.write(tmp_path / "m", WIDE, weights=weights)
    worst = quantize_model(source, tmp_path / "all", min_cosine=0).min_cosine
    # So near that it takes one part, and not a second.
    least = 1 - (1 - worst) * 0.9
    quantize_model(source, tmp_path / "saved", min_cosine=least)
    model = SentenceTransformer(tmp_path / "saved")
    types = {part: model.part_types[f"{tensor}.{part}"] for part in parts}
    assert types == dict.fromkeys(parts, "int8") | {parts[1]: "float32"}
    saved = load_file(tmp_path / "saved" / WEIGHTS)
    assert_same_bits(saved[f"{tensor}.weight"], weights[f"{tensor}.weight"])
    assert f"{tensor}.{parts[1]}.weight" not in saved
    with Checkpoint(source) as checkpoint:
        build = partial(build_encoder, architecture.fields(WIDE), checkpoint)
        encoder = quantize_encoder(build, min_cosine=least).encoder
    ids = architecture.ids(TEXTS[0])
    expected = encoder.encode(ids, [0, len(ids)])
    assert_same_bits(model.encode(TEXTS[0], output_value="token_embeddings"), expected)

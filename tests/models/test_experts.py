"""nomic-embed-text-v2-moe's architecture, compared with a definition of its published code in float64. The
code itself is never run."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer, quantize_model
from simdformer.folder.loading import load_model
from tests.support import assert_same_bits
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_experts import NOMIC_EXPERTS
from tests.support.tiny_models import TEXTS, WIDE

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")
# Unit vectors differ by at most 2e-6 from the definition.
UNIT = {"rtol": 0, "atol": 2e-6}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_follow_the_definition_at_every_level(tmp_path, active_isa):  # noqa: ARG001
    model = SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "m"))
    found = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found, unit(NOMIC_EXPERTS.pooled(TEXTS)), **UNIT)
    for text in TEXTS[:3]:
        found = model.encode(text, output_value="token_embeddings")
        np.testing.assert_allclose(found, NOMIC_EXPERTS.states(text), **CLOSE)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_a_vector_depends_neither_on_the_batch_nor_on_threads(tmp_path, compute_type):
    folder = NOMIC_EXPERTS.write(tmp_path / "m", WIDE)
    encoder = load_model(folder, compute_type=compute_type).encoder.native()
    ids = [NOMIC_EXPERTS.ids(text) for text in [*TEXTS, *TEXTS[:3] * 6]]
    cu_seqlens = np.cumsum([0, *map(len, ids)])
    together = encoder.encode(np.concatenate(ids), cu_seqlens, num_threads=1)
    for threads in (2, 3, 16):
        found = encoder.encode(np.concatenate(ids), cu_seqlens, num_threads=threads)
        assert_same_bits(found, together)
    for i, own in enumerate(ids[:6]):
        for threads in (1, 2, 16):
            alone = encoder.encode(own, [0, len(own)], num_threads=threads)
            assert_same_bits(alone, together[cu_seqlens[i] : cu_seqlens[i + 1]])


# Where two experts are nearly as probable, rounding may choose the other one.
@pytest.mark.parametrize(("compute_type", "least"), [("bfloat16", 0.9995), ("int8", 0.99)])
def test_rounded_weights_are_close(tmp_path, compute_type, least):
    folder = NOMIC_EXPERTS.write(tmp_path / "m", WIDE)
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    model = SentenceTransformer(folder, compute_type=compute_type)
    cosines = (model.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1)
    assert least <= cosines.min() < 1 - 1e-9


def test_a_saved_int8_model_is_that_of_loading_as_int8(tmp_path):
    folder = NOMIC_EXPERTS.write(tmp_path / "m", WIDE)
    report = quantize_model(folder, tmp_path / "saved")
    assert len(report.parts) == NOMIC_EXPERTS.num_parts(WIDE)
    expected = SentenceTransformer(folder, compute_type="int8").encode(TEXTS)
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(TEXTS), expected)


def test_the_router_stays_in_float32(tmp_path):
    model = SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "m", WIDE), compute_type="int8")
    experts = model.encoder.layers[1].experts
    assert experts.linear1[0].compute_type == "int8"
    expected = NOMIC_EXPERTS.weights(WIDE)["layers.1.router.weight"]
    assert_same_bits(experts.router.weight, expected)


@pytest.mark.parametrize("name", ["router.weight", "experts.up", "experts.down", "experts.bias"])
def test_swapping_experts_changes_the_result(tmp_path, name):
    model = SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "m"))
    weights = NOMIC_EXPERTS.weights()
    swapped = weights[f"layers.1.{name}"]
    swapped[:] = np.roll(swapped, len(swapped) // 5, axis=0)
    renamed = NOMIC_EXPERTS.renamed(weights)
    other = SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "other", weights=renamed))
    difference = np.abs(unit(model.encode(TEXTS)) - unit(other.encode(TEXTS))).max(axis=1)
    assert (difference > 1e-3).all()


def test_its_ungated_layers_without_experts(tmp_path):
    """As in nomic-xlm-2048, from which version 2 was made."""
    weights = NOMIC_EXPERTS.weights()
    fields = NOMIC_EXPERTS.fields(n_layer=1, moe_every_n_layers=0, num_experts=0)
    first = {n: w for n, w in weights.items() if not n.startswith("layers.") or ".0." in n}
    renamed = NOMIC_EXPERTS.renamed(first)
    folder = NOMIC_EXPERTS.write(tmp_path / "m", weights=renamed, files={"config.json": fields})
    hidden = SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "whole")).outputs(
        "a cab", output_hidden_states=True
    )
    found = SentenceTransformer(folder).encode("a cab", output_value="token_embeddings")
    assert_same_bits(found, hidden.hidden_states[1])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"moe_top_k": 6}, "moe_top_k=6 is larger than num_experts=5"),
        ({"num_experts": 0}, "num_experts must be an int in 1"),
        ({"moe_every_n_layers": 0}, "unknown num_experts 5; known: 0, None"),
        ({"moe_normalize_expert_weights": True}, "unknown moe_normalize_expert_weights True"),
        ({"num_shared_experts": 1}, "unknown num_shared_experts 1"),
        ({"expert_choice_router": True}, "unknown expert_choice_router True"),
        ({"qkv_proj_bias": False}, "unknown qkv_proj_bias False; known: True"),
        ({"activation_function": "swiglu"}, "unknown mlp_fc1_bias True; known: False"),
        ({"activation_function": "relu"}, "unknown activation_function 'relu'"),
        ({"num_experts": 4}, r"experts.mlp.w1' in model.safetensors has shape .*num_experts=4"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, fields, match):
    files = {"config.json": NOMIC_EXPERTS.fields(**fields)}
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(NOMIC_EXPERTS.write(tmp_path / "m", files=files))

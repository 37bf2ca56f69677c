"""The options of DeBERTa v2, in addition to the tests of all architectures."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_deberta import DEBERTA_KINDS, DEBERTA_V2
from tests.support.tiny_models import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")


@pytest.mark.parametrize("kind", DEBERTA_KINDS)
def test_its_variants_follow_the_oracle(tmp_path, kind):
    architecture = DEBERTA_KINDS[kind]
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    np.testing.assert_allclose(model.encode(TEXTS), architecture.pooled(TEXTS), **CLOSE)


@pytest.mark.parametrize("kind", DEBERTA_KINDS)
def test_int8_of_its_variants_is_close(tmp_path, kind):
    folder = DEBERTA_KINDS[kind].write(tmp_path / "m")
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    int8 = SentenceTransformer(folder, compute_type="int8")
    assert (int8.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1).min() > 0.998


@pytest.mark.parametrize("name", ["encoder.rel_embeddings.weight", "encoder.LayerNorm.weight"])
def test_changing_distances_changes_the_result(tmp_path, name):
    weights = DEBERTA_V2.weights()
    weights[name] = weights[name][::-1].copy()
    a, b = (
        SentenceTransformer(DEBERTA_V2.write(tmp_path / key, weights=w)).encode(TEXTS[:3])
        for key, w in (("m", DEBERTA_V2.weights()), ("other", weights))
    )
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("terms", ["p2c|c2p", "P2C | c2p", ["c2p", "p2c"], ["c2p", "p2c", "p2p"]])
def test_terms_may_be_named_in_any_form(tmp_path, terms):
    files = {"config.json": DEBERTA_V2.fields(pos_att_type=terms)}
    model = SentenceTransformer(DEBERTA_V2.write(tmp_path / "m", files=files))
    np.testing.assert_allclose(model.encode(TEXTS[:2]), DEBERTA_V2.pooled(TEXTS[:2]), **CLOSE)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("conv_kernel_size", 3, "unknown conv_kernel_size 3; known: 0, None"),
        ("embedding_size", 12, "unknown embedding_size 12; known: 20, None"),
        ("attention_head_size", 5, "unknown attention_head_size 5; known: 4, None"),
        ("position_buckets", 7, r"rel_embeddings.weight' .* needs \(14, 20\)"),
        ("position_buckets", 1, "position_buckets 1 and max_position 130 do not"),
        ("position_buckets", "8", "position_buckets must be an int in 1.*, got '8'"),
        ("max_relative_positions", 3, "position_buckets 8 and max_position 3 do not"),
        ("share_att_key", False, "pos_key_proj.weight' is missing"),
        ("share_att_key", 1, "share_att_key must be true or false, got 1"),
        ("position_biased_input", True, "position_embeddings.weight' is missing"),
        ("norm_rel_ebd", "none", "2 tensors do not belong to the model"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, field, value, match):
    files = {"config.json": DEBERTA_V2.fields(**{field: value})}
    folder = DEBERTA_V2.write(tmp_path / "m", files=files)
    with pytest.raises((ValueError, UserWarning), match=match):
        SentenceTransformer(folder)

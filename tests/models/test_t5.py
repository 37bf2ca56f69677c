"""T5's encoder, in addition to the tests of all architectures."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import TEXTS
from tests.support.tiny_t5 import BIAS, GATED_T5, T5_ENCODER

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")


def test_a_gated_feed_forward_follows_the_oracle(tmp_path):
    model = SentenceTransformer(GATED_T5.write(tmp_path / "m"))
    np.testing.assert_allclose(model.encode(TEXTS), GATED_T5.pooled(TEXTS), **CLOSE)


def test_int8_of_a_gated_feed_forward_is_close(tmp_path):
    folder = GATED_T5.write(tmp_path / "m")
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    int8 = SentenceTransformer(folder, compute_type="int8")
    assert (int8.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1).min() > 0.998


def test_changing_the_bias_changes_the_result(tmp_path):
    weights = T5_ENCODER.weights()
    weights[BIAS][:] = 0
    without = T5_ENCODER.write(tmp_path / "without", weights=T5_ENCODER.renamed(weights))
    a, b = (
        SentenceTransformer(folder).encode(TEXTS[:3])
        for folder in (T5_ENCODER.write(tmp_path / "m"), without)
    )
    assert np.abs(a - b).max() > 0.05


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("d_kv", None, "d_kv is missing"),
        ("num_heads", 4, "has shape"),
        ("relative_attention_num_buckets", 16, "has shape"),
        ("feed_forward_proj", "gated-mish", "unknown feed_forward_proj 'mish'"),
        ("feed_forward_proj", 1, "unknown feed_forward_proj 1"),
        ("is_decoder", True, "unknown is_decoder True; known: False"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, field, value, match):
    files = {"config.json": T5_ENCODER.fields(**{field: value})}
    folder = T5_ENCODER.write(tmp_path / "m", files=files)
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(folder)

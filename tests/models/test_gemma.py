"""Gemma's options, in addition to the tests of all architectures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simdformer import SentenceTransformer, nn
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import BY_NAME, TEXTS
from tests.support.tiny_rotary import ALL, LOCAL, without

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")
GEMMA = BY_NAME["gemma3_text"]


def vectors(folder, fields):
    return SentenceTransformer(GEMMA.write(folder, files={"config.json": fields})).encode(TEXTS)


def test_without_the_flag_it_is_causal(tmp_path):
    causal = replace(GEMMA, everywhere=(-1, 0), window=(7, 0))
    found = vectors(tmp_path / "m", GEMMA.fields(use_bidirectional_attention=False))
    np.testing.assert_allclose(found, causal.pooled(TEXTS), **CLOSE)


def test_fields_from_before_transformers_5_have_the_same_meaning(tmp_path):
    older = without(GEMMA.fields(), "layer_types", "rope_parameters")
    older |= {"sliding_window_pattern": 2, "rope_theta": 5000.0, "rope_local_base_freq": 300.0}
    types = (LOCAL, ALL, LOCAL, ALL)
    expected = replace(GEMMA, layer_types=types, thetas={ALL: 5000.0, LOCAL: 300.0})
    found = vectors(tmp_path / "m", older)
    np.testing.assert_allclose(found, expected.pooled(TEXTS), **CLOSE)


@pytest.mark.parametrize(
    "name", ["query_pre_attn_scalar", "sliding_window", "use_bidirectional_attention"]
)
def test_changing_a_field_changes_the_result(tmp_path, name):
    changed = {
        "query_pre_attn_scalar": 30,
        "sliding_window": 6,
        "use_bidirectional_attention": None,
    }
    found = vectors(tmp_path / "m", GEMMA.fields(**{name: changed[name]}))
    assert np.abs(found - GEMMA.pooled(TEXTS)).max() > 1e-3


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("is_causal", False, "unknown is_causal False; known: True, None"),
        ("query_pre_attn_scalar", 0, "query_pre_attn_scalar must be a finite number above 0"),
        ("sliding_window", 0, "sliding_window must be an int in 1"),
        ("hidden_activation", "mish", "unknown hidden_activation 'mish'"),
        ("use_bidirectional_attention", 1, "use_bidirectional_attention must be true or false"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, field, value, match):
    with pytest.raises(ValueError, match=match):
        vectors(tmp_path / "m", GEMMA.fields(**{field: value}))


def test_a_head_tied_to_a_scaled_table_is_refused(tmp_path):
    encoder = SentenceTransformer(GEMMA.write(tmp_path / "m")).encoder
    with pytest.raises(
        ValueError, match=r"word embeddings were multiplied by 4\.47214.*pass lm_head"
    ):
        nn.LanguageModel(encoder)
    head = nn.Linear(encoder.hidden_size, encoder.vocab_size, bias=False)
    assert nn.LanguageModel(encoder, lm_head=head).vocab_size == encoder.vocab_size

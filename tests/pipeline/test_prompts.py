"""Prompts: given as text or name, saved with the model, included in or excluded from pooling."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support import assert_same_bits
from tests.support.model_fixtures import CLOSE, pooled, write_model

PROMPTS = {"prompts": {"query": "q ", "passage": "p ", "none": None}, "default_prompt_name": None}


@pytest.fixture
def prompted(tmp_path):
    files = {"config_sentence_transformers.json": PROMPTS}
    return SentenceTransformer(write_model(tmp_path / "m", files=files))


def test_a_prompt_is_put_before_each_text(prompted):
    assert_same_bits(prompted.encode(["a", "b"], prompt="x "), prompted.encode(["x a", "x b"]))


def test_a_prompt_may_be_given_by_name(prompted):
    assert_same_bits(prompted.encode("a", prompt_name="passage"), prompted.encode("p a"))


def test_a_prompt_has_precedence_over_a_prompt_name_with_a_warning(prompted):
    with pytest.warns(UserWarning, match="prompt_name='query' are both given; prompt is used"):
        vector = prompted.encode("a", prompt="x ", prompt_name="query")
    assert_same_bits(vector, prompted.encode("x a"))


def test_encode_query_uses_the_query_prompt(prompted):
    assert_same_bits(prompted.encode_query("a"), prompted.encode("q a"))
    assert_same_bits(prompted.encode_query("a", prompt_name="passage"), prompted.encode("p a"))


def test_encode_document_uses_the_document_prompt_even_an_empty_one(prompted):
    # As in sentence-transformers, "document" always exists and has precedence over "passage".
    assert_same_bits(prompted.encode_document("a"), prompted.encode("a"))
    del prompted.prompts["document"]
    assert_same_bits(prompted.encode_document("a"), prompted.encode("p a"))


def test_saved_prompts_without_text_are_empty(prompted):
    assert prompted.prompts == {"query": "q ", "document": "", "passage": "p ", "none": ""}


def test_given_prompts_have_precedence_over_saved_ones(tmp_path):
    files = {"config_sentence_transformers.json": PROMPTS}
    folder = write_model(tmp_path / "m", files=files)
    model = SentenceTransformer(folder, prompts={"query": "", "passage": None, "own": "o "})
    assert model.prompts["query"] == ""
    assert model.prompts["passage"] == "p "
    assert model.prompts["own"] == "o "


def test_the_default_prompt_is_used_without_a_prompt_name(tmp_path):
    config = PROMPTS | {"default_prompt_name": "passage"}
    files = {"config_sentence_transformers.json": config}
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    assert_same_bits(model.encode("a"), model.encode("p a", prompt=""))
    assert_same_bits(model.encode_query("a"), model.encode("q a", prompt=""))


def test_an_unknown_default_prompt_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown prompt name 'x'; known: "):
        SentenceTransformer(write_model(tmp_path / "m"), default_prompt_name="x")


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "cls", "max"])
def test_pooling_can_exclude_the_prompt(tmp_path, mode):
    config = {"embedding_dimension": 20, "pooling_mode": mode, "include_prompt": False}
    model = SentenceTransformer(
        write_model(tmp_path / "m", files={"1_Pooling/config.json": config})
    )
    # [CLS] and the three letters of the prompt; the prompt's own [SEP] does not count.
    expected = pooled(["abc deed"], [mode], start=4)[0]
    np.testing.assert_allclose(model.encode("deed", prompt="abc "), expected, **CLOSE)


def test_set_pooling_include_prompt_changes_it(model, tmp_path):
    other = SentenceTransformer(write_model(tmp_path / "m"))
    other.set_pooling_include_prompt(False)
    expected = pooled(["abc deed"], ["mean"], start=4)[0]
    np.testing.assert_allclose(other.encode("deed", prompt="abc "), expected, **CLOSE)
    assert_same_bits(other.encode("deed"), model.encode("deed"))

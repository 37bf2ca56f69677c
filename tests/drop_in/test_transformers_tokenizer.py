"""`model.tokenizer`: the methods of transformers, on a tokenizer with known ids."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    TEXTS,
    VOCABULARY,
    letter_ids,
    tokenizer_json,
    write_cross_encoder,
    write_model,
)

CONFIG = {"model_max_length": 512, "pad_token": "[PAD]", "cls_token": {"content": "[CLS]"}}


@pytest.fixture
def own(tmp_path):
    definition = tokenizer_json()
    definition["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    files = {"tokenizer_config.json": CONFIG, "tokenizer.json": definition}
    return SentenceTransformer(write_model(tmp_path / "m", files=files))


@pytest.fixture
def tokenizer(own):
    return own.tokenizer


def test_a_text_gives_lists(tokenizer):
    found = tokenizer("a cab")
    assert found["input_ids"] == found.input_ids == letter_ids("a cab")
    assert found["attention_mask"] == [1] * len(found.input_ids)
    assert list(found) == tokenizer.model_input_names
    assert found.to("cpu") is found
    with pytest.raises(AttributeError, match="known: input_ids, token_type_ids, attention_mask"):
        found.labels  # noqa: B018


def test_several_texts_give_one_list_each(tokenizer):
    assert tokenizer(TEXTS)["input_ids"] == [letter_ids(text) for text in TEXTS]
    assert tokenizer([])["input_ids"] == []
    assert tokenizer(["a"])["input_ids"] == [letter_ids("a")]


def test_pairs_have_types(tokenizer):
    found = tokenizer("ab", "c")
    assert found["input_ids"] == [*letter_ids("ab"), *letter_ids("c")[1:]]
    assert found["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert tokenizer([("ab", "c"), ["d", "e"]])["input_ids"][0] == found["input_ids"]
    assert tokenizer(["ab"], ["c"])["input_ids"] == [found["input_ids"]]


def test_without_special_tokens(tokenizer):
    assert tokenizer.encode("ab", add_special_tokens=False) == letter_ids("ab")[1:-1]
    assert tokenizer.tokenize("ab") == ["a", "##b"]
    assert tokenizer.tokenize("ab", add_special_tokens=True) == ["[CLS]", "a", "##b", "[SEP]"]


def test_texts_are_truncated_only_on_request(tokenizer):
    long = "a " * 300
    assert len(tokenizer.encode(long)) == 302
    assert len(tokenizer.encode(long, truncation=True)) == tokenizer.model_max_length == 100
    assert len(tokenizer.encode(long, max_length=7)) == 7
    assert len(tokenizer.encode(long, max_length=7, truncation="do_not_truncate")) == 302
    assert len(tokenizer.encode(long, max_length=2**32, truncation="do_not_truncate")) == 302
    assert len(tokenizer.encode(long, max_length=150, truncation="longest_first")) == 150


def test_padding(tokenizer):
    found = tokenizer(["a", "abc"], padding=True, return_tensors="np")
    assert found["input_ids"].dtype == np.int64
    assert found["input_ids"].tolist() == [[*letter_ids("a"), 0, 0], letter_ids("abc")]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert tokenizer("a", padding="max_length", max_length=6)["input_ids"] == [
        *letter_ids("a"),
        0,
        0,
        0,
    ]
    assert len(tokenizer("a", padding=True, pad_to_multiple_of=8)["input_ids"]) == 8
    tokenizer.padding_side = "left"
    assert tokenizer(["a", "ab"], padding=True)["input_ids"][0] == [0, *letter_ids("a")]


def test_a_single_text_is_a_matrix_of_one_row_as_an_array(tokenizer):
    assert tokenizer("ab", return_tensors="np")["input_ids"].shape == (1, 4)


def test_what_is_left_out_and_added(tokenizer):
    found = tokenizer(
        "ab", return_attention_mask=False, return_token_type_ids=False, return_length=True
    )
    assert found == {"input_ids": letter_ids("ab"), "length": [4]}


def test_ids_become_text_again(tokenizer):
    ids = tokenizer.encode("ab cd")
    assert tokenizer.decode(ids) == "[CLS] ab cd [SEP]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab cd"
    assert tokenizer.decode(np.array(ids[1:-1])) == "ab cd"
    assert tokenizer.decode([ids, ids[1:-1]]) == ["[CLS] ab cd [SEP]", "ab cd"]
    assert tokenizer.batch_decode([ids], skip_special_tokens=True) == ["ab cd"]
    assert tokenizer.decode(ids[1]) == "a"


def test_ids_and_tokens(tokenizer):
    assert tokenizer.convert_tokens_to_ids("b") == VOCABULARY.index("b")
    assert tokenizer.convert_tokens_to_ids(["b", "##c"]) == [
        VOCABULARY.index("b"),
        VOCABULARY.index("##c"),
    ]
    assert tokenizer.convert_ids_to_tokens(5) == "a"
    assert tokenizer.convert_ids_to_tokens([2, 5]) == ["[CLS]", "a"]
    assert tokenizer.convert_ids_to_tokens([2, 5], skip_special_tokens=True) == ["a"]


def test_the_properties_of_the_tokenizer(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == len(VOCABULARY)
    assert tokenizer.get_vocab()["a"] == 5
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 0)
    assert (tokenizer.cls_token, tokenizer.cls_token_id) == ("[CLS]", 2)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (None, None)
    assert tokenizer.all_special_tokens == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.num_special_tokens_to_add() == 2
    assert tokenizer.num_special_tokens_to_add(pair=True) == 3
    assert tokenizer.is_fast
    assert tokenizer.truncation_side == "right"


def test_its_length_is_the_models(own):
    own.tokenizer.model_max_length = 6
    assert own.max_seq_length == 6
    own.max_seq_length = 7
    assert own.tokenizer.model_max_length == 7
    assert own.tokenizer is own[0].tokenizer


def test_a_copys_tokenizer_belongs_to_the_copy(own):
    own.tokenizer.padding_side = "left"
    for other in (copy.copy(own), copy.deepcopy(own)):
        assert other.tokenizer.model is other
    other.tokenizer.model_max_length = 6
    assert own.max_seq_length == 100


def test_no_call_changes_a_vector(own):
    before = own.encode(TEXTS)
    own.tokenizer(TEXTS, padding=True, truncation=True, max_length=3)
    own.tokenizer.encode("a", "b", add_special_tokens=False)
    own.tokenizer.padding_side = "left"
    assert_same_bits(own.encode(TEXTS), before)


def test_a_cross_encoders_reads_single_texts_too(tmp_path):
    tokenizer = CrossEncoder(write_cross_encoder(tmp_path / "m")).tokenizer
    assert tokenizer.encode("ab") == letter_ids("ab")
    assert tokenizer("ab", "c")["token_type_ids"] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda t: t("a", truncation="only_first"), ValueError, "unknown truncation 'only_first'"),
        (lambda t: t("a", padding="x"), ValueError, "unknown padding 'x'; known: False, True"),
        (lambda t: t("a", return_tensors="tf"), ValueError, "unknown return_tensors 'tf'"),
        (lambda t: t("a", max_length=0), ValueError, "max_length must be a positive integer"),
        (lambda t: t(["a", 3]), TypeError, r"text\[1\] must be a str, got int"),
        (lambda t: t(["a"], ["b", "c"]), ValueError, "text_pair must have as many texts"),
        (lambda t: t(["a", ("b", "c")]), TypeError, "not both"),
        (lambda t: t(["a", "bc"], return_tensors="np"), ValueError, "padding must be set"),
        (lambda t: t.nothing, AttributeError, "the tokenizer has no attribute 'nothing'"),
        (lambda t: setattr(t, "padding_side", "up"), ValueError, "unknown padding_side 'up'"),
        (
            lambda t: setattr(t, "truncation_side", "left"),
            AttributeError,
            "truncation_side cannot be set; model_max_length and padding_side can",
        ),
    ],
)
def test_unsupported_calls_are_refused(tokenizer, call, error, match):
    with pytest.raises(error, match=match):
        call(tokenizer)

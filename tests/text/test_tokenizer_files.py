"""Tokenizers of models from before tokenizer.json, made from a vocabulary and the rules of a class.
test_tokenizer_parity.py compares them with transformers."""

from __future__ import annotations

import json

import pytest
import tokenizers

from simdformer import SentenceTransformer
from simdformer.text.tokenizer import load_tokenizer
from tests.support import assert_same_bits
from tests.support.model_fixtures import LETTERS, PAIRS, TEXTS, VOCABULARY, write_files, write_model

VOCAB_TXT = "\n".join(VOCABULARY) + "\n"
# The same letters with RoBERTa's special tokens; "Ġ" is its space.
ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BYTES = {token: i for i, token in enumerate([*ANGLES, *LETTERS, "Ġ", "Ġa", "ab"])}
MPNET_TXT = "\n".join([*ANGLES, "[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)])
ROBERTA = {"vocab.json": BYTES, "merges.txt": "#version: 0.2\nĠ a\na b\n"}


def write_tokenizer(folder, model_type="bert", *, settings=None, files=None):
    contents = {"config.json": {"model_type": model_type}, "tokenizer_config.json": settings or {}}
    if model_type in ("bert", "distilbert"):
        contents["vocab.txt"] = VOCAB_TXT
    elif model_type == "mpnet":
        contents["vocab.txt"] = MPNET_TXT
    elif model_type == "roberta":
        contents |= ROBERTA
    write_files(folder, contents | (files or {}))
    return folder


def load(folder, **options):
    defaults = {"max_seq_length": None, "max_positions": 50, "do_lower_case": False}
    return load_tokenizer(folder, **(defaults | options))


def ids(folder, text, **options):
    return load(folder, **options)([text]).input_ids[0]


def numbers(*tokens, of=VOCABULARY):
    vocabulary = of if isinstance(of, dict) else {token: i for i, token in enumerate(of)}
    return [vocabulary[token] for token in tokens]


def refused(folder, match, error=ValueError):
    with pytest.raises(error, match=match):
        load(folder)


# Files that are read


def test_a_model_with_a_vocabulary_gives_the_vectors_of_one_with_tokenizer_json(tmp_path):
    whole = write_model(tmp_path / "whole")
    old = write_model(tmp_path / "old", files={"tokenizer.json": None, "vocab.txt": VOCAB_TXT})
    expected = SentenceTransformer(whole).encode(TEXTS)
    assert_same_bits(SentenceTransformer(old).encode(TEXTS), expected)


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_berts_pairs_have_types(tmp_path, model_type):
    write_tokenizer(tmp_path, model_type)
    tokens = load(tmp_path, pairs=True)([("a", "b c"), *PAIRS])
    assert tokens.input_ids[0] == numbers("[CLS]", "a", "[SEP]", "b", "c", "[SEP]")
    assert tokens.type_ids[0] == [0, 0, 0, 1, 1, 1]


def test_mpnets_pairs_have_two_separators_and_no_types(tmp_path):
    write_tokenizer(tmp_path, "mpnet")
    tokens = load(tmp_path, pairs=True)([("ab", "c ?")])
    expected = ["<s>", "a", "##b", "</s>", "</s>", "c", "[UNK]", "</s>"]
    assert tokens.input_ids == [numbers(*expected, of=MPNET_TXT.split("\n"))]
    assert tokens.type_ids is None


def test_robertas_words_are_joined_by_merges(tmp_path):
    write_tokenizer(tmp_path, "roberta")
    tokens = load(tmp_path, pairs=True)([("ab a", "c")])
    expected = ["<s>", "ab", "Ġa", "</s>", "</s>", "c", "</s>"]
    assert tokens.input_ids == [numbers(*expected, of=BYTES)]
    assert tokens.type_ids is None


def test_a_space_before_robertas_first_word_is_a_setting(tmp_path):
    write_tokenizer(tmp_path, "roberta", settings={"add_prefix_space": True})
    assert ids(tmp_path, "a") == numbers("<s>", "Ġa", "</s>", of=BYTES)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, ["a", "e"]),
        ({"do_lower_case": True}, ["a", "e"]),
        ({"do_lower_case": False}, ["[UNK]", "[UNK]"]),
        ({"strip_accents": False}, ["a", "[UNK]"]),
    ],
)
def test_the_settings_of_the_normalizer_are_applied(tmp_path, settings, tokens):
    write_tokenizer(tmp_path, settings=settings)
    assert ids(tmp_path, "A é") == numbers("[CLS]", *tokens, "[SEP]")


def test_words_of_more_than_100_characters_are_unknown(tmp_path):
    write_tokenizer(tmp_path)
    expected = numbers("[CLS]", "a", *["##a"] * 99, "[UNK]", "[SEP]")
    assert ids(tmp_path, "a" * 100 + " " + "a" * 101, max_positions=200) == expected


def test_special_tokens_in_a_text_are_found(tmp_path):
    write_tokenizer(tmp_path)
    assert ids(tmp_path, "a[MASK] b") == numbers("[CLS]", "a", "[MASK]", "b", "[SEP]")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["0", {"content": "0", "normalized": False}])
def test_special_tokens_may_be_named_in_either_file(tmp_path, name, token):
    write_tokenizer(tmp_path, files={name: {"cls_token": token, "pad_token": token}})
    assert ids(tmp_path, "a") == numbers("0", "a", "[SEP]")
    assert load(tmp_path).files.pad_id == VOCABULARY.index("0")


def test_the_map_is_not_read_if_the_settings_have_all_tokens(tmp_path):
    added = {"57": {"content": "0", "special": True}}
    files = {"special_tokens_map.json": {"cls_token": "1"}}
    write_tokenizer(
        tmp_path, settings={"added_tokens_decoder": added, "cls_token": "0"}, files=files
    )
    assert ids(tmp_path, "a") == numbers("0", "a", "[SEP]")


@pytest.mark.parametrize(
    "files",
    [
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"62": {"content": "<y>"}, "61": "<x>"}
            }
        },
        {"added_tokens.json": {"<y>": 62, "<x>": 61}},
        {"tokenizer_config.json": {"additional_special_tokens": ["<x>", "<y>"]}},
        {"special_tokens_map.json": {"additional_special_tokens": ["<x>", "<y>"]}},
        {"tokenizer_config.json": {"extra_special_tokens": {"one": "<x>", "other": "<y>"}}},
    ],
    ids=str,
)
def test_added_tokens_are_numbered_behind_the_vocabulary(tmp_path, files):
    write_tokenizer(tmp_path, files=files)
    assert ids(tmp_path, "a<x> <y>") == [*numbers("[CLS]", "a"), 61, 62, *numbers("[SEP]")]


def test_the_mask_of_mpnet_includes_the_space_before_it(tmp_path):
    tokenizer = load(write_tokenizer(tmp_path, "mpnet"))._tokenizer
    (mask,) = (t for t in tokenizer.get_added_tokens_decoder().values() if t.content == "<mask>")
    assert mask.lstrip


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "roberta"])
def test_the_pad_token_is_that_of_the_class(tmp_path, model_type):
    assert load(write_tokenizer(tmp_path, model_type)).files.pad_id == int(model_type != "bert")


def test_a_tokenizers_class_has_precedence_over_the_model_type(tmp_path):
    settings = {"tokenizer_class": "MPNetTokenizerFast"}
    write_tokenizer(tmp_path, settings=settings, files={"vocab.txt": MPNET_TXT})
    assert ids(tmp_path, "a") == numbers("<s>", "a", "</s>", of=MPNET_TXT.split("\n"))


def test_tokenizer_json_comes_first(tmp_path):
    definition = json.loads(
        tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 7}, "x")).to_str()
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_tokenizer(tmp_path, settings=settings, files={"tokenizer.json": definition})
    assert ids(tmp_path, "a") == [7]


def test_old_settings_name_the_limit_differently(tmp_path):
    write_tokenizer(tmp_path, settings={"max_len": 9})
    assert load(tmp_path).max_seq_length == 9


# Files that are refused


def test_the_error_for_an_unusable_vocabulary_says_what_to_do(tmp_path):
    pieces = {"sentencepiece.bpe.model": b"x"}
    write_tokenizer(tmp_path, "modernbert", files=pieces)
    match = (
        r"no tokenizer\.json in .*; a tokenizer of the generic class needs this file;"
        r" sentencepiece\.bpe\.model cannot be used instead; .* save_pretrained"
    )
    refused(tmp_path, match, FileNotFoundError)


@pytest.mark.parametrize(
    ("model_type", "name", "match"),
    [
        (
            "bert",
            "vocab.txt",
            r"no tokenizer\.json in .*, nor vocab\.txt; write it with transformers",
        ),
        ("roberta", "merges.txt", r"no tokenizer\.json in .*, nor vocab\.json and merges\.txt;"),
    ],
)
def test_a_missing_vocabulary_is_named(tmp_path, model_type, name, match):
    write_tokenizer(tmp_path, model_type, files={name: None})
    refused(tmp_path, match, FileNotFoundError)


@pytest.mark.parametrize(
    ("model_type", "files", "match"),
    [
        ("bert", {"vocab.txt": b"\xff\xfe\n"}, r"vocab\.txt: not a tokenizer definition"),
        ("bert", {"vocab.txt": ""}, r"vocab\.txt: .*unknown words, '\[UNK\]', is not in it"),
        ("roberta", {"vocab.json": "[]"}, r"vocab\.json: not a tokenizer definition"),
        ("roberta", {"merges.txt": "x y z\n"}, r"vocab\.json: not a tokenizer definition"),
        ("roberta", {"merges.txt": "x q\n"}, r"vocab\.json: not a tokenizer definition"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path, model_type, files, match):
    refused(write_tokenizer(tmp_path, model_type, files=files), match)


@pytest.mark.parametrize(
    "settings",
    [
        {"cls_token": 7},
        {"cls_token": ["x"]},
        {"cls_token": {"lstrip": True}},
        {"cls_token": {"content": "x", "lstrip": 1}},
        {"additional_special_tokens": "x"},
        {"additional_special_tokens": [None]},
        {"added_tokens_decoder": []},
        {"added_tokens_decoder": {"x": "y"}},
        {"added_tokens_decoder": {"9" * 5000: "y"}},
        {"added_tokens_decoder": {"1": 2}},
    ],
    ids=lambda settings: str(settings)[:50],
)
def test_invalid_tokens_are_refused(tmp_path, settings):
    write_tokenizer(tmp_path, settings=settings)
    refused(tmp_path, r"tokenizer_config\.json: ")

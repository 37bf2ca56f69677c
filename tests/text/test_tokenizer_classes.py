"""Tokenizers give the ids of transformers 5, as stored by tools/make_tokenizer_ids.py.
test_tokenizer_parity.py checks that these are still transformers'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simdformer import SentenceTransformer
from simdformer.text.tokenizer import load_tokenizer
from simdformer.text.tokenizer_files import read_tokenizer
from tests.support.model_fixtures import write_model
from tests.support.tokenizer_grid import KINDS, SAMPLE, SAMPLE_PAIR, write_folder

STORED = json.loads((Path(__file__).parent / "tokenizer_ids.json").read_text(encoding="utf-8"))
OPTIONS = {"max_seq_length": None, "max_positions": 1000, "do_lower_case": False}
# The class's unknown token is not in the vocabulary: transformers fails at the first unknown word.
REFUSED = {
    ("BERT", "all older files"),
    ("MPNet", "all older files"),
    ("BERT as XLM-R", "no tokenizer_config.json"),
}


def load(folder, **options):
    return load_tokenizer(folder, **OPTIONS, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_the_stored_ones(kind, tmp_path):
    differing = []
    for name, variants, expected in STORED:
        for variant in variants if name == kind else ():
            if (kind, variant) in REFUSED:
                continue
            folder = write_folder(tmp_path / variant, kind, variant)
            tokenizer = load(folder, pairs=True)
            pairs = tokenizer([SAMPLE_PAIR])
            types = pairs.type_ids or [[0] * len(row) for row in pairs.input_ids]
            found = [tokenizer([SAMPLE]).input_ids, pairs.input_ids, types]
            if [rows[0] for rows in found] != expected:
                differing.append(variant)
    assert differing == []


@pytest.mark.parametrize(("kind", "variant"), sorted(REFUSED))
def test_a_token_for_unknown_words_must_be_in_the_vocabulary(kind, variant, tmp_path):
    folder = write_folder(tmp_path, kind, variant)
    with pytest.raises(
        ValueError, match=r"tokenizer\.json: the token for unknown words, .* not in"
    ):
        load(folder)


def test_an_unsupported_class_is_refused(tmp_path):
    folder = write_folder(tmp_path, "BERT", "as it is")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    match = (
        r"tokenizer_config\.json: tokenizers of the class BertJapaneseTokenizer are not supported"
    )
    with pytest.raises(ValueError, match=match + "; known: AlbertTokenizer, "):
        load(folder)


def test_an_unknown_class_uses_tokenizer_json_unchanged(tmp_path):
    folder = write_folder(tmp_path, "BERT", "pre-tokenizer of its own")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MyTokenizer"}')
    assert read_tokenizer(folder, {}).tokenizer.pre_tokenizer.__class__.__name__ == "Whitespace"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"do_lower_case": "yes"}, "do_lower_case must be true or false, got 'yes'"),
        ({"do_lower_case": None}, "do_lower_case must be true or false, got None"),
        ({"strip_accents": 1}, "strip_accents must be true or false, got 1"),
        ({"unk_token": None}, "unk_token is null, but the tokenizer's class requires one"),
        ({"cls_token": None}, "the cls_token, None, has no id"),
        ({"truncation_side": "up"}, "truncation_side must be 'right' or 'left', got 'up'"),
        ({"padding_side": None}, "padding_side must be 'right' or 'left', got None"),
        ({"model_input_names": "input_ids"}, "model_input_names must be a list, got 'input_ids'"),
        ({"split_special_tokens": "no"}, "split_special_tokens must be true or false, got 'no'"),
        ({"extra_special_tokens": "x"}, "extra_special_tokens must be a list of tokens, got 'x'"),
        ({"extra_special_tokens": {"x_token": 3}}, "a token must be a string or an object with one"),
        ({"added_tokens_decoder": {"1": {"content": "x", "lstrip": 2}}}, "must be true or false"),
    ],
    ids=str,
)  # fmt: skip
def test_an_invalid_field_is_named(fields, match, tmp_path):
    folder = write_folder(tmp_path, "BERT", "as it is")
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert "tokenizer_config.json: " in str(error.value) or "tokenizer.json: " in str(error.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["model"].pop("vocab"), "not a tokenizer definition: 'vocab'"),
        (lambda d: d.pop("model"), "not a tokenizer definition: 'model'"),
        (lambda d: d["model"].update(vocab=3), "not a tokenizer definition"),
        (lambda d: d["model"].update(vocab={"[UNK]": "x"}), "not a tokenizer definition"),
        (lambda d: d.update(post_processor={"type": "?"}), "not a tokenizer definition"),
        (lambda d: d.update(added_tokens=[{"id": 1, "content": 2}]), "not a tokenizer definition"),
    ],
)
def test_a_damaged_definition_is_named(change, match, tmp_path):
    folder = write_folder(tmp_path, "BERT", "as it is")
    parsed = json.loads((folder / "tokenizer.json").read_text())
    change(parsed)
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(ValueError, match=rf"tokenizer\.json: {match}"):
        load(folder)


def test_a_unigram_class_refuses_another_model(tmp_path):
    folder = write_folder(tmp_path, "BERT", "as it is")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(ValueError, match=r"tokenizer\.json: its class requires a Unigram model"):
        load(folder)


def test_overrides_have_precedence_over_every_file(tmp_path):
    folder = write_folder(tmp_path, "BERT", "a map")  # it adds <q> and [r] around a text
    overrides = {"sep_token": "x", "cls_token": "y", "do_lower_case": False}
    tokenizer = load(folder, overrides=overrides)
    assert tokenizer.spell(tokenizer(["The"]).input_ids[0]) == ("y", "T", "##h", "##e", "x")


def test_the_newest_of_several_definitions_is_used(tmp_path):
    folder = write_folder(tmp_path, "BERT, generic", "as it is")
    parsed = json.loads((folder / "tokenizer.json").read_text())
    parsed["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "the"}
    (folder / "tokenizer.4.0.0.json").write_text(json.dumps(parsed))
    names = ["tokenizer.4.0.0.json", "tokenizer.json", "tokenizer.99.0.0.json"]
    names.append("tokenizer.5/../../tokenizer.json")  # a path outside the folder
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "fast_tokenizer_files": names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(folder)
    assert tokenizer.spell(tokenizer(["a"]).input_ids[0]) == ("[CLS]", "the", "[SEP]")


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_truncated_on_the_declared_side(side, tmp_path):
    folder = write_folder(tmp_path, "BERT", "as it is")
    (folder / "tokenizer_config.json").write_text(json.dumps({"truncation_side": side}))
    tokenizer = load_tokenizer(folder, **{**OPTIONS, "max_seq_length": 3})
    kept = {"left": "mat", "right": "cat"}[side]
    assert tokenizer.spell(tokenizer(["cat sat mat"]).input_ids[0])[1] == kept


def test_special_tokens_of_a_text_can_be_split(tmp_path):
    folder = write_folder(tmp_path, "BERT", "split_special_tokens True")
    assert load(folder)(["[SEP]"]).input_ids[0].count(3) == 1


def test_a_class_with_left_padding_pads_on_the_left(tmp_path):
    assert load(write_folder(tmp_path / "a", "Gemma", "as it is")).files.padding_side == "left"
    assert load(write_folder(tmp_path / "b", "BERT", "as it is")).files.padding_side == "right"


def test_a_model_pads_on_the_declared_side(tmp_path):
    files = {"tokenizer_config.json": {"padding_side": "left"}}
    tokens = SentenceTransformer(write_model(tmp_path, files=files)).tokenize(["a", "a b c"])
    assert tokens["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1] * 5]
    assert tokens["input_ids"][0].tolist() == [0, 0, 2, 5, 3]


def test_undeclared_special_tokens_are_those_of_the_class(tmp_path):
    model = SentenceTransformer(write_model(tmp_path, files={"tokenizer_config.json": None}))
    assert model.tokenizer.cls_token == "[CLS]"
    assert model.tokenizer.mask_token_id == 4
    assert model.tokenizer.bos_token is None

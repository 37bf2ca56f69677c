"""Truncation of texts and pairs: the ids are those of the tokenizers library's own truncation."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import processors

from simdformer.text.tokenizer import Tokenizer
from simdformer.text.tokenizer_files import TokenizerFiles
from tests.support.model_fixtures import tokenizer_json

TEMPLATES = {
    "bert": processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    ),
    "bert, built in": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
}
LENGTHS = [0, 1, 2, 3, 4, 5, 8, 9, 30]


def library_tokenizer(template="bert"):
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json()))
    tokenizer.post_processor = TEMPLATES[template]
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def ours(template="bert", *, limit, side="right", pairs=True, **options):
    return Tokenizer(
        TokenizerFiles(library_tokenizer(template), truncation_side=side),
        max_seq_length=limit,
        pairs=pairs,
        **options,
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [4, 5, 6, 11, 12])
def test_pairs_are_truncated_as_by_the_library(template, side, limit):
    theirs = library_tokenizer(template)
    theirs.enable_truncation(limit, strategy="longest_first", direction=side)
    pairs = [("abcdefghijklmnopqrstuvwxyzabcd"[:n], "z" * m) for n in LENGTHS for m in LENGTHS]
    expected = theirs.encode_batch(pairs)
    tokens = ours(template, limit=limit, side=side)(pairs)
    assert tokens.input_ids == [encoding.ids for encoding in expected]
    if template != "roberta":
        assert tokens.type_ids == [encoding.type_ids for encoding in expected]
    assert tokens.num_truncated == sum(bool(encoding.overflowing) for encoding in expected)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [2, 3, 6])
def test_single_texts_are_truncated_as_by_the_library(side, limit):
    theirs = library_tokenizer()
    theirs.enable_truncation(limit, direction=side)
    texts = ["abcdefgh"[:n] for n in range(9)]
    expected = theirs.encode_batch(texts)
    tokens = ours(limit=limit, side=side, pairs=False)(texts)
    assert tokens.input_ids == [encoding.ids for encoding in expected]
    assert tokens.num_truncated == sum(bool(encoding.overflowing) for encoding in expected)


def test_special_tokens_in_the_text_are_truncated_like_others():
    theirs = library_tokenizer()
    theirs.enable_truncation(8)
    pair = ("a [SEP] b [CLS] c", "d [SEP] [SEP] e f")
    assert ours(limit=8)([pair]).input_ids == [theirs.encode(*pair).ids]


def test_one_pair_and_many_have_the_same_tokens():
    pairs = [("a b", "c"), ("", ""), ("abc " * 40, "d " * 30)]
    tokenizer = ours(limit=20)
    together = tokenizer(pairs)
    for i, pair in enumerate(pairs):
        alone = tokenizer([pair])
        assert alone.input_ids == [together.input_ids[i]]
        assert alone.type_ids == [together.type_ids[i]]


def test_the_second_text_has_token_type_1_unless_the_model_has_no_types():
    assert ours(limit=9)([("ab", "c")]).type_ids == [[0, 0, 0, 0, 1, 1]]
    assert ours(limit=9, with_type_ids=False)([("ab", "c")]).type_ids is None
    assert ours("roberta", limit=9)([("ab", "c")]).type_ids is None


def test_another_limit_changes_only_the_copy():
    tokenizer = ours(limit=9, side="left")
    shorter = tokenizer.with_max_seq_length(6)
    assert shorter([("abc", "def")]).input_ids == ours(limit=6, side="left")([("abc", "def")])[0]
    assert tokenizer([("abc", "def")]).num_truncated == 0


def test_a_pair_needs_room_for_its_special_tokens():
    with pytest.raises(ValueError, match=r"max_seq_length must be at least 4 \(4 special tokens\)"):
        ours("roberta", limit=3)


def test_two_long_texts_are_truncated_quickly():
    # The library's truncation creates every combination of their 200 pieces, which takes minutes and all
    # memory.
    pair = ("a " * 20_000, "b " * 20_000)
    tokens = ours(limit=103)([pair])
    assert tokens.input_ids[0].count(5) == tokens.input_ids[0].count(6) == 50

"""`model.tokenizer` compared with transformers' tokenizer of the same folder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.folder.resolve import resolve_model

pytestmark = pytest.mark.parity

TEXTS = ["hello world", "It's a test , isn't it ?", "naïve café", "", "a " * 300, "tokenization"]


@pytest.fixture(scope="module")
def both():
    transformers = pytest.importorskip("transformers")
    folder = resolve_model("all-MiniLM-L6-v2")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = SentenceTransformer(folder).tokenizer
    theirs.model_max_length = ours.model_max_length
    return ours, theirs


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "truncation": truncation,
            "max_length": length,
            "padding": padding,
            "add_special_tokens": special,
        }
        for truncation, length, padding, special in itertools.product(
            (None, True, "do_not_truncate"), (None, 9), (False, True, "max_length"), (True, False)
        )
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
def test_calls_agree(both, arguments):
    ours, theirs = both
    for text in ("hello world", TEXTS, ("a b c d e f g h", "i j k l m n o p")):
        args = text if isinstance(text, tuple) else (text,)
        assert dict(ours(*args, **arguments)) == dict(theirs(*args, **arguments))


def test_arrays_agree(both):
    ours, theirs = both
    for text in ("hello", TEXTS[:4]):
        mine = ours(text, padding=True, return_tensors="np", pad_to_multiple_of=8)
        other = theirs(text, padding=True, return_tensors="np", pad_to_multiple_of=8)
        for name, value in other.items():
            np.testing.assert_array_equal(mine[name], value)
        assert type(ours(text, padding=True, return_tensors="pt")["input_ids"]).__name__ == "Tensor"


def test_texts_come_back_the_same(both):
    ours, theirs = both
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.tokenize(text) == theirs.tokenize(text)
        for skip, clean in itertools.product((True, False), (None, True, False)):
            options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)
        assert ours.convert_ids_to_tokens(ids, True) == theirs.convert_ids_to_tokens(ids, True)


@pytest.mark.parametrize(
    "name",
    [
        "vocab_size", "model_input_names", "padding_side", "truncation_side", "pad_token_id",
        "cls_token", "sep_token_id", "mask_token", "unk_token_id", "bos_token", "eos_token_id", "is_fast",
    ],
)  # fmt: skip
def test_properties_agree(both, name):
    assert getattr(both[0], name) == getattr(both[1], name)


def test_their_sizes_agree(both):
    assert len(both[0]) == len(both[1])
    assert both[0].get_vocab() == both[1].get_vocab()
    assert sorted(both[0].all_special_ids) == sorted(both[1].all_special_ids)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"padding": True}, {"padding": "max_length", "max_length": 9, "truncation": True}],
    ids=str,
)
def test_lengths_agree(both, arguments):
    ours, theirs = both
    for text in ("hello world", TEXTS, ("a b c", "d")):
        args = text if isinstance(text, tuple) else (text,)
        found = ours(*args, return_length=True, **arguments)
        assert dict(found) == dict(theirs(*args, return_length=True, **arguments))
    cut = {"padding": True, "truncation": True, "return_tensors": "np", "return_length": True}
    np.testing.assert_array_equal(ours(TEXTS, **cut)["length"], theirs(TEXTS, **cut)["length"])

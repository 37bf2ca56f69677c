"""Failures of the tokenizers library. Its panics are not subclasses of Exception and must be converted."""

from __future__ import annotations

import json
import threading

import pytest

from simdformer.text.batching import map_ahead, pack
from simdformer.text.tokenizer import Tokenizer, load_tokenizer
from simdformer.text.tokenizer_files import read_tokenizer
from tests.support.tokenizer_grid import write_folder

OPTIONS = {"max_seq_length": None, "max_positions": 1000, "do_lower_case": False}
# A regular expression with exponentially many matches for a run of x, at which the library panics.
ENDLESS = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}


class PanicException(BaseException):
    """Like the library's exception, which cannot be imported."""


class Library:
    """A tokenizers.Tokenizer whose batches fail."""

    def __init__(self, tokenizer, error):
        self._tokenizer, self._error, self.batches = tokenizer, error, 0

    def encode_batch_fast(self, texts, add_special_tokens):  # noqa: ARG002
        self.batches += 1
        raise self._error

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


@pytest.fixture(autouse=True)
def _pool(monkeypatch):
    monkeypatch.setattr(Tokenizer, "_pool_works", True)


def generic(folder, **changes):
    """A folder whose tokenizer.json is used unchanged."""
    write_folder(folder, "BERT, generic", "as it is")
    parsed = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(parsed | changes))
    return folder


@pytest.fixture
def failing(tmp_path):
    tokenizer = load_tokenizer(generic(tmp_path), **OPTIONS)

    def made(error):
        tokenizer._tokenizer = Library(tokenizer._tokenizer, error)
        return tokenizer

    return made


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_definition_that_the_library_panics_at_is_named(changes, tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer definition: "):
        load_tokenizer(generic(tmp_path, **changes), **OPTIONS)


def test_a_text_that_the_library_panics_at_is_shown(tmp_path):
    tokenizer = load_tokenizer(generic(tmp_path, normalizer=ENDLESS), **OPTIONS)
    bad, message = "a" + "x" * 50, "a text cannot be tokenized; it begins with 'ax{39}': "
    for texts in ([bad], ["the", bad]):
        with pytest.raises(ValueError, match=message):
            tokenizer(texts)
    assert len(tokenizer(["the", "cat"]).input_ids) == 2
    assert Tokenizer._pool_works


def test_without_threads_texts_are_tokenized_one_by_one(failing, tmp_path):
    texts = ["the cat", "sat", ""]
    expected = load_tokenizer(generic(tmp_path / "b"), **OPTIONS)(texts)
    tokenizer = failing(PanicException("The global thread pool has not been initialized"))
    assert tokenizer(texts) == expected
    assert tokenizer(texts) == expected
    assert tokenizer._tokenizer.batches == 1  # the library tries to start its threads only once


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), MemoryError()])
def test_exceptions_of_other_origin_are_raised_unchanged(failing, error):
    with pytest.raises(type(error)):
        failing(error)(["a", "b"])


def test_without_threads_work_is_done_in_the_callers_thread(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert list(map_ahead(str, iter(range(5)))) == ["0", "1", "2", "3", "4"]


def test_padding_of_a_definition_is_off_before_the_first_text(tmp_path):
    padding = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": 2**20,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    files = read_tokenizer(generic(tmp_path, padding=padding), {})
    assert files.tokenizer.padding is None
    assert len(files.tokenizer.encode("the").ids) < 10


def test_an_id_beyond_int32_is_an_error_that_shows_it():
    for sequences in ([[1, 2**31]], [[1], [2**31]]):
        with pytest.raises(IndexError, match=r"token id 2147483648; expected an id in \[0, "):
            pack(sequences)

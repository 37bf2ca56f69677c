"""Tokenizers of SentencePiece models. test_tokenizer_parity.py compares their ids with transformers'."""

from __future__ import annotations

import builtins

import pytest

from simdformer.text.tokenizer import load_tokenizer
from tests.support.tokenizer_grid import write_folder

OPTIONS = {"max_seq_length": None, "max_positions": 1000, "do_lower_case": False}


@pytest.fixture(autouse=True)
def _reader():
    pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")


def pieces(folder, text, **options):
    tokenizer = load_tokenizer(folder, **OPTIONS, **options)
    return " ".join(tokenizer.spell(tokenizer([text]).input_ids[0]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("XLM-R", "<s> ▁the ▁cat ▁ f i </s>"),
        ("CamemBERT", "<s> ▁the ▁cat ▁ f i </s>"),
        ("T5", "▁the ▁cat ▁ f i </s>"),
        ("ALBERT", "[CLS] ▁the ▁cat ▁ f i [SEP]"),
        ("DeBERTa-v2", "[CLS] ▁the ▁cat ▁ [UNK] [SEP]"),
        ("Llama", "▁the ▁cat ▁ <0xEF> <0xAC> <0x81>"),
    ],
)
def test_a_text_is_split_into_pieces_with_the_special_tokens_of_the_class(kind, expected, tmp_path):
    assert pieces(write_folder(tmp_path, kind, "as it is", old=True), "the cat ﬁ") == expected


def test_a_file_of_another_format_is_refused(tmp_path):
    folder = write_folder(tmp_path, "T5", "as it is", old=True)
    (folder / "spiece.model").write_bytes(b"\xff" * 50)
    with pytest.raises(ValueError, match=r"spiece\.model: not a SentencePiece model"):
        load_tokenizer(folder, **OPTIONS)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, "T5", "as it is", old=True)
    load = builtins.__import__

    def without(name, *args):
        if name.startswith("sentencepiece"):
            raise ImportError(name)
        return load(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=r"spiece\.model: .* pip install simdformer\[sentencepiece"
    ):
        load_tokenizer(folder, **OPTIONS)

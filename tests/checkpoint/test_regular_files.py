"""Loaders read regular files of bounded size. Pipes and devices, which have no end, are refused."""

from __future__ import annotations

import os

import pytest

from simdformer import SentenceTransformer
from simdformer.checkpoint import check_regular, read_json, read_regular
from tests.support.model_fixtures import write_dense, write_model

FILES = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "model.safetensors",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
]


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, device, folder])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_refused_or_not_there(tmp_path, name, make):
    model = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    write_dense(model / "2_Dense", 20, 8)
    path = model / name
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises((ValueError, OSError), match=path.name):
        SentenceTransformer(model)


@pytest.mark.parametrize("make", [pipe, device])
def test_json_that_is_not_a_regular_file_is_refused_by_its_path(tmp_path, make):
    make(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"x\.json: not a regular file"):
        read_json(tmp_path / "x.json")


def test_json_beyond_the_bound_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"{}")
    os.truncate(path, 1 << 40)  # a sparse file, which uses no disk space
    with pytest.raises(ValueError, match=r"x\.json: more than \d+ bytes"):
        read_json(path)


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abcd")
    check_regular(path, 4)
    assert read_regular(path, 4) == b"abcd"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_regular(path, 3)
    with pytest.raises(ValueError, match="4 bytes; at most 3"):
        check_regular(path, 3)

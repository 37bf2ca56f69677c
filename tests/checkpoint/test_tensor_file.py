"""Reading parts of an open file, on systems with pread and without."""

from __future__ import annotations

import os
import threading

import pytest

from simdformer.checkpoint import tensor_file
from simdformer.checkpoint.tensor_file import TensorFile

CONTENT = bytes(range(256)) * 64


@pytest.fixture(params=["pread", "no pread"])
def file(request, tmp_path, monkeypatch):
    if request.param == "no pread":
        monkeypatch.delattr(os, "preadv")
    path = tmp_path / "tensors"
    path.write_bytes(CONTENT)
    file = TensorFile(path)
    yield file
    file.close()


def test_a_part_of_the_file_is_read(file):
    assert file.read(1000, 77) == CONTENT[77:1077]


def test_a_large_part_is_read_in_several_calls(file, monkeypatch):
    monkeypatch.setattr(tensor_file, "_MOST", 7)
    assert file.read(1000, 77) == CONTENT[77:1077]


def test_a_file_that_has_become_shorter_is_named(file):
    os.truncate(file.path, 500)
    with pytest.raises(ValueError, match=r"tensors: the file was truncated"):
        file.read(1000, 77)


def test_threads_read_their_own_parts(file):
    wrong = []

    def read(offset):
        if any(file.read(64, offset) != CONTENT[offset : offset + 64] for _ in range(200)):
            wrong.append(offset)

    threads = [threading.Thread(target=read, args=[offset]) for offset in (0, 1000, 2001, 3002)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

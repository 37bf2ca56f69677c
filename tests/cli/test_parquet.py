"""Parquet and Arrow files after errors: nothing stays open, and nothing more is said."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from simdformer.cli import arrow, opening
from simdformer.cli.errors import CliError
from simdformer.cli.output import AtomicFile
from simdformer.cli.records import Columns, Fields, Format, Record

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_a_stopped_run_leaves_no_writer_that_fails_later(tmp_path, monkeypatch):
    from simdformer.cli import parquet_writer

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    monkeypatch.setattr(parquet_writer, "_ROW_GROUP", 1)

    def stopped():
        with AtomicFile(str(tmp_path / "out.parquet")) as file:
            writer = parquet_writer.ParquetWriter(file, Format(2, Columns(), {}))
            writer.write([Record("a", 1)], np.ones((1, 2), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    gc.collect()
    assert said == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def opened(monkeypatch):
    """The files that were opened."""
    files, open_file = [], arrow._open

    def watched(path):
        files.append(open_file(path))
        return files[-1]

    monkeypatch.setattr(arrow, "_open", watched)
    return files


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_file_that_cannot_be_read_is_closed(tmp_path, opened, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"neither of them")
    with pytest.raises(CliError, match="cannot read"):
        arrow.ArrowSource(str(path), kind, Fields())
    assert [file.closed for file in opened] == [True]


def test_a_file_without_the_column_is_closed(tmp_path, opened):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(CliError, match="no column"):
        arrow.ArrowSource(str(tmp_path / "a.parquet"), "parquet", Fields())
    assert [file.closed for file in opened] == [True]


def test_a_file_of_vectors_is_closed_after_reading(tmp_path, opened):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with arrow.open_vectors(str(tmp_path / "a.parquet"), ["text"]):
        assert not opened[0].closed
    assert opened[0].closed


def test_a_file_that_cannot_be_decompressed_is_closed(tmp_path, monkeypatch):
    files = []

    def fail(file, _):
        files.append(file)
        raise CliError("this format needs pyarrow")

    monkeypatch.setattr(opening, "_decompressed", fail)
    (tmp_path / "a.txt.zst").write_bytes(b"x")
    with pytest.raises(CliError, match="needs pyarrow"):
        opening.open_input(str(tmp_path / "a.txt.zst"))
    assert [file.closed for file in files] == [True]

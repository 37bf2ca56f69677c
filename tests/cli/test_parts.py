"""simdformer embed: a folder of parts, and int8 codes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.cli import int8_codes, main, parts
from simdformer.cli.parts import PartsFolder
from simdformer.util import quantize_embeddings
from tests.support.model_fixtures import write_model

TEXTS = [f"text {'abcdefghij'[i % 10]} of {'klmnopqrst'[i // 10]}" for i in range(100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def vectors(folder):
    return SentenceTransformer(folder).encode(TEXTS)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "in" / "corpus.txt"
    path.parent.mkdir()
    path.write_text("\n".join(TEXTS))
    return path


def embed(corpus, folder, out, *arguments):
    return main(["embed", str(corpus), "--model", str(folder), "-o", str(out), *arguments])


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line)["embedding"] for line in path.read_text().splitlines()]
        return np.array(rows)
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    return np.array(table["embedding"].to_pylist())


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_parts_have_the_same_number_of_texts_in_order(tmp_path, corpus, folder, vectors, suffix):
    out = tmp_path / f"out.{suffix}"
    assert embed(corpus, folder, out, "--part-rows", "30") == 0
    found = sorted(out.iterdir())
    assert [path.name for path in found] == [f"part-0000{i}.{suffix}" for i in range(4)]
    rows = [read(path) for path in found]
    assert [len(part) for part in rows] == [30, 30, 30, 10]
    np.testing.assert_array_equal(np.concatenate(rows).astype(np.float32), vectors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", f"out.{suffix}"]


def test_no_texts_give_one_empty_part(tmp_path, folder):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert embed(empty, folder, tmp_path / "out.npy", "--part-rows", "5") == 0
    assert np.load(tmp_path / "out.npy" / "part-00000.npy").shape == (0, 20)


def test_a_folder_of_parts_is_replaced_as_a_whole(tmp_path, corpus, folder):
    out = tmp_path / "out.npy"
    assert embed(corpus, folder, out, "--part-rows", "10") == 0
    assert embed(corpus, folder, out, "--part-rows", "60") == 0
    assert sorted(path.name for path in out.iterdir()) == ["part-00000.npy", "part-00001.npy"]


def test_an_error_leaves_the_folder_unchanged(tmp_path, corpus, folder, monkeypatch):
    out = tmp_path / "out.npy"
    assert embed(corpus, folder, out, "--part-rows", "10") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.PartsWriter, "finish", fail)
    assert embed(corpus, folder, out, "--part-rows", "60") == 130
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.npy"]


def test_other_files_in_the_folder_are_never_removed(tmp_path, corpus, folder, capsys):
    out = tmp_path / "out.npy"
    out.mkdir()
    (out / "letters.txt").write_text("dear")
    assert embed(corpus, folder, out, "--part-rows", "10") == 1
    assert "it holds letters.txt, which is not a part" in capsys.readouterr().err
    assert (out / "letters.txt").read_text() == "dear"
    file = tmp_path / "file.npy"
    file.write_text("x")
    assert embed(corpus, folder, file, "--part-rows", "10") == 1
    assert "it is a file, and --part-rows makes a folder" in capsys.readouterr().err


def test_two_runs_into_one_folder_are_refused(tmp_path, corpus, folder, capsys):
    with parts.PartsFolder(str(tmp_path / "out.npy")):
        assert embed(corpus, folder, tmp_path / "out.npy", "--part-rows", "10") == 1
    assert "another run writes the same output" in capsys.readouterr().err


def test_files_of_a_killed_run_are_removed(tmp_path, corpus, folder):
    left = tmp_path / ".out.npy.parts"
    left.mkdir()
    (left / "part-00009.npy").write_text("x")
    assert embed(corpus, folder, tmp_path / "out.npy", "--part-rows", "60") == 0
    assert len(list((tmp_path / "out.npy").iterdir())) == 2
    assert not left.exists()


def test_a_resumed_run_writes_the_same_parts(tmp_path, corpus, folder, monkeypatch):
    pytest.importorskip("pyarrow")
    options = ("--part-rows", "30", "--resume", "--dtype", "int8")
    monkeypatch.setattr(int8_codes, "_CALIBRATION_TEXTS", 40)
    assert embed(corpus, folder, tmp_path / "whole.parquet", *options) == 0
    finish = parts.PartsWriter.finish

    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.PartsWriter, "finish", fail)
    assert embed(corpus, folder, tmp_path / "out.parquet", *options) == 130
    monkeypatch.setattr(parts.PartsWriter, "finish", finish)
    assert embed(corpus, folder, tmp_path / "out.parquet", *options) == 0
    for path in (tmp_path / "whole.parquet").iterdir():
        assert (tmp_path / "out.parquet" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_int8_codes_are_those_of_quantize_embeddings(tmp_path, corpus, folder, vectors, suffix):
    out = tmp_path / f"out.{suffix}"
    assert embed(corpus, folder, out, "--dtype", "int8") == 0
    found = read(out)
    np.testing.assert_array_equal(found, quantize_embeddings(vectors, "int8"))
    if suffix != "jsonl":
        assert suffix == "parquet" or found.dtype == np.int8
    ranges = np.load(tmp_path / f"out.{suffix}.ranges.npy")
    np.testing.assert_array_equal(ranges, [vectors.min(axis=0), vectors.max(axis=0)])


def test_ranges_are_those_of_the_first_texts(
    tmp_path, corpus, folder, vectors, monkeypatch, capsys
):
    monkeypatch.setattr(int8_codes, "_CALIBRATION_TEXTS", 20)
    assert embed(corpus, folder, tmp_path / "out.npy", "--dtype", "int8") == 0
    ranges = np.load(tmp_path / "out.npy.ranges.npy")
    expected = quantize_embeddings(vectors, "int8", ranges=ranges)
    np.testing.assert_array_equal(ranges, [vectors[:20].min(axis=0), vectors[:20].max(axis=0)])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert "the ranges of int8 are those of 20 texts" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--part-rows", "30")])
def test_old_ranges_are_removed_before_the_codes_are_replaced(
    tmp_path, corpus, folder, monkeypatch, options
):
    out, ranges = tmp_path / "out.npy", tmp_path / "out.npy.ranges.npy"
    options = ("--dtype", "int8", *options)
    assert embed(corpus, folder, out, *options) == 0
    found = []
    for name in ("replace", "rename"):
        move = getattr(Path, name)

        def moved(path, target, move=move):
            if target == out:
                found.append(ranges.exists())
            return move(path, target)

        monkeypatch.setattr(Path, name, moved)
    assert embed(corpus, folder, out, *options) == 0
    assert found == [False]
    assert ranges.exists()


def test_a_failed_run_keeps_the_old_codes_and_their_ranges(tmp_path, corpus, folder, monkeypatch):
    out, ranges = tmp_path / "out.npy", tmp_path / "out.npy.ranges.npy"
    assert embed(corpus, folder, out, "--dtype", "int8") == 0
    before = out.read_bytes(), ranges.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert embed(corpus, folder, out, "--dtype", "int8", "--normalize") == 1
    assert (out.read_bytes(), ranges.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", out.name, ranges.name]


def test_int8_of_one_text_is_refused(tmp_path, folder, capsys):
    one = tmp_path / "one.txt"
    one.write_text("a")
    assert embed(one, folder, tmp_path / "out.npy", "--dtype", "int8") == 1
    assert "needs at least two texts" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--part-rows", "5"], ["--dtype", "int8"]])
def test_parts_cannot_be_written_to_standard_output(corpus, folder, capsys, arguments):
    with pytest.raises(SystemExit):
        embed(corpus, folder, "-", *arguments)
    assert "OUTPUT must not be -" in capsys.readouterr().err


def test_row_groups_of_parquet_do_not_depend_on_chunks(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    from simdformer.cli import parquet_writer
    from simdformer.cli.output import AtomicFile
    from simdformer.cli.records import Columns, Format, Record

    monkeypatch.setattr(parquet_writer, "_ROW_GROUP", 8)
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    records = [Record(f"t{i}", i) for i in range(20)]
    for name, size in (("one", 20), ("other", 3)):
        with AtomicFile(str(tmp_path / name)) as file:
            writer = parquet_writer.ParquetWriter(file, Format(3, Columns(), {}))
            for begin in range(0, 20, size):
                writer.write(records[begin : begin + size], rows[begin : begin + size])
            writer.finish()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_folder_of_a_run_killed_between_two_renames_is_restored(tmp_path):
    old = tmp_path / ".out.npy.old"
    old.mkdir()
    (old / "part-00000.npy").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), PartsFolder(str(tmp_path / "out.npy")):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert (tmp_path / "out.npy" / "part-00000.npy").read_bytes() == b"old"


@pytest.mark.parametrize("ids", [["a", "b", 3, 4], [None, 2, 3, 4]])
def test_all_parquet_parts_have_one_type_of_ids(tmp_path, folder, ids):
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = tmp_path / "in.jsonl"
    texts.write_text("".join(json.dumps({"id": i, "text": "a"}) + "\n" for i in ids))
    out = tmp_path / "out.parquet"
    assert embed(texts, folder, out, "--part-rows", "2", "--id", "id") == 0
    schemas = [parquet.read_schema(path) for path in sorted(out.iterdir())]
    assert schemas[0].equals(schemas[1])
    stored = parquet.read_table(out)["id"].to_pylist()
    assert stored == [None if each is None else str(each) for each in ids]


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_a_search_in_int8_codes_is_refused(tmp_path, corpus, folder, capsys, suffix):
    out = tmp_path / f"out.{suffix}"
    assert embed(corpus, folder, out, "--dtype", "int8") == 0
    texts = ["--in", str(corpus)] if suffix == "npy" else []
    arguments = ["search", "text", *texts, "--embeddings", str(out), "--model", str(folder)]
    assert main(arguments) == 1
    assert "int8" in capsys.readouterr().err


def test_a_search_reads_a_folder_of_parts(tmp_path, corpus, folder, capsys):
    pytest.importorskip("pyarrow")
    out = tmp_path / "out.parquet"
    assert embed(corpus, folder, out, "--part-rows", "30") == 0
    arguments = [
        "search",
        TEXTS[77],
        "--embeddings",
        str(out),
        "--model",
        str(folder),
        "--top",
        "1",
    ]
    assert main(arguments) == 0
    assert TEXTS[77] in capsys.readouterr().out

"""simdformer embed with many inputs: files, folders, patterns, compression, fields, skipped records."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simdformer import SentenceTransformer
from simdformer.cli import main
from simdformer.cli.opening import expand
from tests.support import assert_same_bits

TEXTS = ["A cat.", "Interest rates rose again.", "日本語の文章です。"]


@pytest.fixture(scope="module")
def vectors():
    return SentenceTransformer("all-MiniLM-L6-v2").encode(TEXTS)


def arrow_table():
    return pa.table({"key": [7, 8, 9], "text": TEXTS})


def write(path, texts=TEXTS):
    """Write texts in the format of the path's suffix."""
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(arrow_table(), path)
        return path
    if ".arrow" in name:
        make = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with make(path, arrow_table().schema) as writer:
            writer.write_table(arrow_table())
        return path
    rows = list(enumerate(texts, 7))
    content = {
        "txt": "".join(f"{text}\n" for text in texts),
        "jsonl": "".join(json.dumps({"key": i, "text": text}) + "\n" for i, text in rows),
        "csv": "key,text\n" + "".join(f"{i},{text}\n" for i, text in rows),
        "tsv": "key\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in rows),
    }[name.split(".")[1]].encode()
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".zst"):
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def embed(*arguments, out):
    return main(["embed", *map(str, arguments), "-o", str(out)])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "a.txt.gz",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.tsv",
        "a.csv.zst",
        "a.parquet",
        "a.arrow",
        "a.stream.arrow",
    ],
)
def test_every_format_gives_the_same_vectors(tmp_path, vectors, name):
    out = tmp_path / "out.npy"
    assert embed(write(tmp_path / name), out=out) == 0
    assert_same_bits(np.load(out), vectors)


def test_several_inputs_are_read_in_order(tmp_path, vectors):
    first, second = write(tmp_path / "a.txt", TEXTS[:1]), write(tmp_path / "b.jsonl", TEXTS[1:])
    out = tmp_path / "out.jsonl"
    assert embed(first, second, out=out) == 0
    rows = lines_of(out)
    assert [row["source"] for row in rows] == [str(first), str(second), str(second)]
    assert [row["line"] for row in rows] == [1, 1, 2]
    assert_same_bits(np.array([row["embedding"] for row in rows], np.float32), vectors)


def test_a_folder_stands_for_its_files_in_order(tmp_path, capsys):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.md").write_text("# A page\n\nof two lines\n")
    (folder / "sub" / "a.txt").write_text("one\ntwo\n")
    (folder / ".hidden.txt").write_text("hidden\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out.jsonl"
    assert embed(folder, out=out) == 0
    assert [row["text"] for row in lines_of(out)] == ["# A page\n\nof two lines\n", "one", "two"]
    assert "1 files were skipped" in capsys.readouterr().err


def test_a_pattern_stands_for_the_files_that_it_matches(tmp_path):
    for name in ("b.txt", "a.txt", "c.csv"):
        write(tmp_path / name)
    out = tmp_path / "out.jsonl"
    assert embed(tmp_path / "*.txt", out=out) == 0
    assert [row["source"][-5:] for row in lines_of(out)] == ["a.txt"] * 3 + ["b.txt"] * 3


@pytest.mark.parametrize("is_uri", [False, True])
def test_links_to_folders_are_not_followed(tmp_path, is_uri):
    (tmp_path / "in" / "below").mkdir(parents=True)
    names = [write(tmp_path / "in" / name) for name in ("a.txt", "below/b.txt")]
    (tmp_path / "in" / "below" / "back").symlink_to("..", target_is_directory=True)
    folder = tmp_path / "in"
    found, _ = expand([folder.as_uri() if is_uri else str(folder)], None)
    assert found == [name.as_uri() if is_uri else str(name) for name in names]


def test_a_uri_names_a_file_or_a_folder(tmp_path, vectors):
    write(tmp_path / "a.jsonl.gz")
    for uri in (tmp_path / "a.jsonl.gz").as_uri(), tmp_path.as_uri():
        out = tmp_path / "out.npy"
        assert embed(uri, out=out) == 0
        assert_same_bits(np.load(out), vectors)
        out.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes there")
def test_a_named_pipe_is_read_once(tmp_path, vectors):
    pipe, out = tmp_path / "pipe.txt", tmp_path / "out.npy"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("".join(f"{t}\n" for t in TEXTS)))
    writer.start()
    assert embed(pipe, out=out) == 0
    writer.join()
    assert_same_bits(np.load(out), vectors)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("docs", None, "docs: the folder has no file whose name ends in .txt, .jsonl"),
        ("a.txt.gz", b"no gzip\n", "cannot read"),
        ("a.txt.gz", gzip.compress(b"text\n" * 99, mtime=0)[:-6], "cannot read"),
        ("a.txt.zst", b"no zstd\n", "cannot read"),
        ("a.parquet", b"no parquet", "cannot read"),
        ("a.arrow", b"no arrow", "cannot read"),
        ("a.xyz", b"text", "use --format"),
    ],
)
def test_an_unreadable_input_gives_one_line_with_its_name(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    try:
        status = embed(path, out=tmp_path / "out.npy")
    except SystemExit as error:
        status = error.code
    assert status
    said = capsys.readouterr().err.splitlines()[-1]
    assert message in said
    assert name in said
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("value", [True, 1.5])
def test_an_id_that_is_no_string_or_integer_is_refused(tmp_path, capsys, value):
    (tmp_path / "a.jsonl").write_text(json.dumps({"key": value, "text": "a"}))
    pq.write_table(pa.table({"key": [value], "text": ["a"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert embed(tmp_path / name, "--id", "key", out=tmp_path / "out.jsonl") == 1
        assert '"key" must ' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_two_columns_of_the_name_are_refused(tmp_path, capsys, name):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as file:
            file.write_table(table)
    assert embed(tmp_path / name, out=tmp_path / "out.npy") == 1
    assert '2 columns have the name "text"' in capsys.readouterr().err


def test_a_pattern_without_a_file_is_an_error(tmp_path, capsys):
    assert embed(tmp_path / "*.txt", out=tmp_path / "out.npy") == 1
    assert "no file matches" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_ids_are_copied_to_the_output(tmp_path, name):
    path = write(tmp_path / name)
    out = tmp_path / "out.jsonl"
    assert embed(path, "--id", "key", out=out) == 0
    expected = [7, 8, 9] if name != "a.csv" else ["7", "8", "9"]
    assert [row["id"] for row in lines_of(out)] == expected


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_holds_texts_ids_and_vectors(tmp_path, vectors, dtype):
    out = tmp_path / "out.parquet"
    path = write(tmp_path / "a.jsonl")
    assert embed(path, "--id", "key", "--dtype", dtype, out=out) == 0
    table = pq.read_table(out)
    assert table.column("id").to_pylist() == [7, 8, 9]
    assert table.column("text").to_pylist() == TEXTS
    assert table.column("line").to_pylist() == [1, 2, 3]
    rows = table.column("embedding").combine_chunks()
    assert rows.type.list_size == vectors.shape[1]
    found = rows.flatten().to_numpy().reshape(vectors.shape)
    np.testing.assert_array_equal(found, vectors.astype(dtype))


def test_npy_may_be_float16(tmp_path, vectors):
    out = tmp_path / "out.npy"
    assert embed(write(tmp_path / "a.txt"), "--dtype", "float16", out=out) == 0
    np.testing.assert_array_equal(np.load(out), vectors.astype(np.float16))


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_no_texts_give_a_complete_file_without_rows(tmp_path, suffix):
    (tmp_path / "a.txt").write_text("")
    out = tmp_path / f"out.{suffix}"
    assert embed(tmp_path / "a.txt", out=out) == 0
    if suffix == "npy":
        assert np.load(out).shape == (0, 384)
    elif suffix == "parquet":
        assert pq.read_table(out).num_rows == 0
    else:
        assert out.read_bytes() == b""


def test_a_template_makes_texts_of_fields(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("the title,body\nCats,They sit.\n")
    out = tmp_path / "out.jsonl"
    assert embed(path, "--template", "{the title}: {body}", out=out) == 0
    assert [row["text"] for row in lines_of(out)] == ["Cats: They sit."]


@pytest.mark.parametrize("template", ["no field", "{", "{0.x}", "{a!r}", "{a:>9}", "{}"])
def test_a_template_that_names_no_field_is_refused(tmp_path, capsys, template):
    with pytest.raises(SystemExit):
        embed(write(tmp_path / "a.csv"), "--template", template, out=tmp_path / "out.npy")
    assert "--template" in capsys.readouterr().err


BAD_LINES = (
    b'{"text": "one"}\nno json\n{"text": 5}\n{"text": "\xff"}\n{"other": 1}\n{"text": "two"}\n'
)


def test_bad_records_are_skipped_and_listed(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(BAD_LINES)
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    arguments = "--on-error", "skip", "--errors", errors
    assert embed(tmp_path / "a.jsonl", *arguments, out=out) == 0
    assert [(row["line"], row["text"]) for row in lines_of(out)] == [(1, "one"), (6, "two")]
    assert [row["line"] for row in lines_of(errors)] == [2, 3, 4, 5]
    assert "2 texts embedded, 4 records skipped" in capsys.readouterr().err


def test_a_bad_record_ends_the_run_unless_it_is_skipped(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(BAD_LINES)
    assert embed(tmp_path / "a.jsonl", out=tmp_path / "out.npy") == 1
    assert "line 2: not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


def test_rows_of_parquet_without_text_are_skipped(tmp_path):
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "a.parquet")
    out = tmp_path / "out.jsonl"
    assert embed(tmp_path / "a.parquet", "--on-error", "skip", out=out) == 0
    assert [row["line"] for row in lines_of(out)] == [1, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "--resume"],
        ["-", "-"],
        ["a.txt", "--overlap", "3"],
        ["a.txt", "--errors", "e.jsonl"],
        ["a.txt", "--on-error", "skip", "--errors", "a.txt"],
        ["a.txt", "--on-error", "skip", "--errors", "out.npy"],
        ["a.txt", "--num-threads", "2000"],
        ["a.txt", "--field", "a", "--template", "{b}"],
        ["a.txt", "--field", "a"],
        ["a.txt", "--id", "a"],
        ["a.txt", "--template", "{b}"],
        ["a.txt", "--chunk", "10000"],
        ["a.txt", "--chunk", "8", "--overlap", "8"],
    ],
)
def test_conflicting_arguments_are_refused(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt")
    size = (tmp_path / "a.txt").stat().st_size
    with pytest.raises(SystemExit) as stopped:
        embed(*arguments, out=tmp_path / "out.npy")
    assert stopped.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]
    assert (tmp_path / "a.txt").stat().st_size == size

"""simdformer search --embeddings: vectors saved by embed, in each format, and vectors that do not match."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simdformer.cli import index, main
from simdformer.cli.errors import CliError
from simdformer.cli.matches import TopMatches
from simdformer.cli.records import Record

CORPUS = [
    "Interest rates rose again.",
    "A kitten sleeps on the sofa.",
    "The compiler vectorises this loop.",
    "The cat sat on the mat.",
    "It will rain tomorrow.",
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(text + "\n" for text in CORPUS))
    return str(path)


def embed(corpus, out, *arguments):
    assert main(["embed", corpus, "-o", str(out), *arguments]) == 0
    return str(out)


def search(capsys, *arguments):
    """The result for one query."""
    capsys.readouterr()
    assert main(["search", "pets", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def assert_fails(capsys, arguments, message):
    assert main(["search", "x", *arguments]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["a.npy", "a.jsonl", "a.parquet"])
def test_saved_vectors_give_the_answer_of_the_corpus(tmp_path, corpus, capsys, name):
    direct = search(capsys, "--in", corpus)
    saved = ["--embeddings", embed(corpus, tmp_path / name)]
    given = ["--in", corpus] if name == "a.npy" else []
    assert search(capsys, *saved, *given) == direct


@pytest.mark.parametrize("name", ["a.npy", "a.jsonl", "a.parquet"])
def test_vectors_in_float16_are_read(tmp_path, corpus, capsys, name):
    direct = search(capsys, "--in", corpus)
    saved = ["--embeddings", embed(corpus, tmp_path / name, "--dtype", "float16")]
    found = search(capsys, *saved, *(["--in", corpus] if name == "a.npy" else []))
    for match, expected in zip(found["matches"], direct["matches"], strict=True):
        assert match["text"] == expected["text"]
        assert match["score"] == pytest.approx(expected["score"], abs=1e-3)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_of_files_is_one_index(tmp_path, corpus, capsys, suffix):
    (tmp_path / "index").mkdir()
    for number, text in enumerate(CORPUS):
        (tmp_path / "one.txt").write_text(text + "\n")
        embed(str(tmp_path / "one.txt"), tmp_path / "index" / f"{number}.{suffix}")
    direct = search(capsys, "--in", corpus, "--top", "2")
    found = search(capsys, "--embeddings", str(tmp_path / "index"), "--top", "2")
    assert [m["text"] for m in found["matches"]] == [m["text"] for m in direct["matches"]]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_match_has_the_id_file_and_line_of_its_text(tmp_path, capsys, suffix):
    for number in (1, 2):
        lines = [{"key": f"{number}-{i}", "text": text} for i, text in enumerate(CORPUS)]
        (tmp_path / f"{number}.in.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    sources = [str(tmp_path / f"{number}.in.jsonl") for number in (1, 2)]
    out = str(tmp_path / f"out.{suffix}")
    assert main(["embed", *sources, "--id", "key", "-o", out]) == 0
    found = search(capsys, "--embeddings", out, "--top", "4")["matches"]
    places = {(m["id"], m["source"], m["line"]) for m in found}
    assert places == {(f"{n}-{i}", sources[n - 1], i + 1) for n in (1, 2) for i in (1, 3)}


def test_chunks_are_found(tmp_path, capsys):
    (tmp_path / "long.txt").write_text(" ".join(CORPUS))
    out = embed(str(tmp_path / "long.txt"), tmp_path / "a.parquet", "--chunk", "8")
    best = search(capsys, "--embeddings", out, "--top", "1")["matches"][0]
    assert "kitten" in best["text"] or "cat" in best["text"]


def test_a_later_vector_that_is_not_finite_is_named(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr(index, "_ROWS", 2)
    stored = np.load(embed(corpus, tmp_path / "a.npy"))
    stored[3, 5] = np.nan
    np.save(tmp_path / "a.npy", stored)
    arguments = ["--in", corpus, "--embeddings", str(tmp_path / "a.npy")]
    assert_fails(capsys, arguments, "the text in line 4 has values that are not finite")


def test_a_score_that_is_nan_is_refused():
    records = [Record("a", 1), Record("b", 2)]
    with pytest.raises(CliError, match="the text in line 2 is NaN"):
        TopMatches(1).add(np.array([1, np.nan], np.float32), records)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((4, 384), np.float32), "4 rows, but more texts"),
        (np.zeros((6, 384), np.float32), "6 rows, but 5 texts"),
        (np.zeros((5, 7), np.float32), r"expected float32 or float16 \(texts, 384\)"),
        (np.zeros((5, 384)), "got float64"),
        (np.array(["x"]), "got <U1"),
        (np.eye(5, 384, dtype=np.float32), "not what the model makes of its text"),
        (np.full((5, 384), np.nan, np.float32), "values that are not finite"),
    ],
)
def test_an_array_that_does_not_belong_to_the_corpus_is_refused(
    tmp_path, corpus, capsys, stored, message
):
    np.save(tmp_path / "stored.npy", stored)
    stored = str(tmp_path / "stored.npy")
    assert_fails(capsys, ["--in", corpus, "--embeddings", stored], message)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_not_an_array_is_refused(tmp_path, corpus, capsys, content):
    (tmp_path / "stored.npy").write_bytes(content)
    arguments = ["--in", corpus, "--embeddings", str(tmp_path / "stored.npy")]
    assert_fails(capsys, arguments, "cannot read")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "line 1: not valid JSON"),
        ("[1]", "line 1: expected a JSON object"),
        ('{"text": "a"}', 'line 1: no field "embedding"'),
        ('{"body": "a", "embedding": [1]}', 'line 1: no field "text"'),
        ('{"text": 1, "embedding": [1]}', 'row 1: "text" must be a string'),
        ('{"text": "a", "embedding": ["x"]}', "must be a list of numbers"),
        ('{"text": "a", "embedding": [1, 2]}\n{"text": "a", "embedding": [1]}', "of one length"),
        ('{"text": "a", "embedding": [1, 2]}', "expected vectors"),
    ],
)
def test_lines_that_hold_no_vectors_of_the_model_are_refused(tmp_path, capsys, line, message):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert_fails(capsys, ["--embeddings", str(tmp_path / "a.jsonl")], message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, 'no column "embedding"'),
        ({"text": ["a", "b"], "embedding": [[1.0], None]}, "lists of one length"),
        ({"text": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}, "lists of one length"),
        ({"text": ["a"], "embedding": [None]}, "cannot read"),
        ({"text": [1], "embedding": [[1.0]]}, "must be a string"),
        ({"text": ["a"], "embedding": [[1.0, 2.0]]}, "expected vectors"),
        ({"text": ["a"], "embedding": [1.0]}, "cannot read"),
    ],
)
def test_a_parquet_file_that_holds_no_vectors_of_the_model_is_refused(
    tmp_path, capsys, columns, message
):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert_fails(capsys, ["--embeddings", str(tmp_path / "a.parquet")], message)


def test_a_manifest_of_another_compute_type_is_refused(tmp_path, corpus, capsys):
    out = embed(corpus, tmp_path / "a.parquet")
    arguments = ["--embeddings", out, "--compute-type", "bfloat16"]
    assert_fails(capsys, arguments, "was made in float32, and all-MiniLM-L6-v2 runs in bfloat16")


def test_a_manifest_of_another_model_is_refused(tmp_path, corpus, capsys):
    out = embed(corpus, tmp_path / "a.parquet")
    table = pq.read_table(out)
    manifest = json.loads(table.schema.metadata[b"simdformer"])
    manifest["model"] = "0" * 64
    pq.write_table(
        table.replace_schema_metadata({"simdformer": json.dumps(manifest)}), tmp_path / "b.parquet"
    )
    arguments = ["--embeddings", str(tmp_path / "b.parquet")]
    assert_fails(capsys, arguments, "by another model than all-MiniLM-L6-v2")


def test_an_index_that_another_program_wrote_is_searched(tmp_path, corpus, capsys):
    table = pq.read_table(embed(corpus, tmp_path / "a.parquet"))
    lists = table["embedding"].combine_chunks().cast(pa.list_(pa.float64()))
    pq.write_table(pa.table({"body": table["text"], "embedding": lists}), tmp_path / "b.parquet")
    direct = search(capsys, "--in", corpus)
    arguments = ["--embeddings", str(tmp_path / "b.parquet"), "--field", "body"]
    assert search(capsys, *arguments) == direct


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --in CORPUS, or --embeddings"),
        (["--embeddings", "a.npy"], "has no texts: give --in"),
        (["--embeddings", "a.jsonl", "--in", "a.txt"], "has its texts beside the vectors"),
        (["--embeddings", "a.jsonl", "--format", "txt"], "--format is that of --in"),
    ],
)
def test_arguments_that_do_not_go_together_are_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as leaving:
        main(["search", "x", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err

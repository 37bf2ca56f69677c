"""simdformer embed with the default model: the vectors are those of encode, and failures leave no files."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.cli import main
from tests.support import assert_same_bits
from tests.support.model_fixtures import write_model
from tests.support.tiny_bert import random_weights

TEXTS = [
    "The cat sat on the mat.",
    "",
    "Interest rates rose again.",
    "日本語の文章です。",
    "a, b; \"c\" and 'd'",
    "word " * 300,
]


@pytest.fixture(scope="module")
def model():
    model = SentenceTransformer("all-MiniLM-L6-v2")
    with pytest.warns(UserWarning, match="truncated"):  # once per model; not tested here
        model.encode(TEXTS)
    return model


@pytest.fixture(scope="module")
def vectors(model):
    return model.encode(TEXTS)


@pytest.fixture
def corpus(tmp_path):
    """The path of TEXTS in the given format. Formats with fields have them in the field "body"."""

    def write(format_):
        path = tmp_path / f"corpus.{format_}"
        with path.open("w", encoding="utf-8", newline="") as file:
            if format_ == "txt":
                file.write("".join(text + "\n" for text in TEXTS))
            elif format_ == "jsonl":
                file.writelines(json.dumps({"id": 1, "body": text}) + "\n" for text in TEXTS)
            else:
                csv.writer(file).writerows([["id", "body"], *([7, text] for text in TEXTS)])
        return str(path)

    return write


def embedded_lines(text):
    return np.array([json.loads(line)["embedding"] for line in text.splitlines()], np.float32)


@pytest.mark.parametrize("format_", ["txt", "jsonl", "csv"])
def test_npy_holds_what_encode_gives(tmp_path, corpus, vectors, format_):
    out = tmp_path / "out.npy"
    field = [] if format_ == "txt" else ["--field", "body"]
    assert main(["embed", corpus(format_), "-o", str(out), *field]) == 0
    assert_same_bits(np.load(out), vectors)


def test_jsonl_holds_what_encode_gives(tmp_path, corpus, vectors):
    out = tmp_path / "out.jsonl"
    assert main(["embed", corpus("txt"), "-o", str(out)]) == 0
    assert_same_bits(embedded_lines(out.read_text()), vectors)
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == TEXTS


def test_standard_input_to_standard_output(capsysbinary, monkeypatch, vectors):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert main(["embed", "-", "--format", "jsonl", "-o", "-"]) == 0
    assert_same_bits(embedded_lines(capsysbinary.readouterr().out), vectors)


def test_small_batches_and_one_thread_give_the_same_bits(tmp_path, corpus, vectors):
    out = tmp_path / "out.npy"
    options = ["--max-batch-tokens", "300", "--num-threads", "1"]
    assert main(["embed", corpus("txt"), "-o", str(out), *options]) == 0
    assert_same_bits(np.load(out), vectors)


def test_normalize_gives_encodes_normalized_vectors(tmp_path, corpus, model):
    out = tmp_path / "out.npy"
    assert main(["embed", corpus("txt"), "-o", str(out), "--normalize"]) == 0
    assert_same_bits(np.load(out), model.encode(TEXTS, normalize_embeddings=True))


def test_no_texts_give_an_array_without_rows(tmp_path, vectors):
    (tmp_path / "empty.txt").touch()
    assert main(["embed", str(tmp_path / "empty.txt"), "-o", str(tmp_path / "out.npy")]) == 0
    assert np.load(tmp_path / "out.npy").shape == (0, vectors.shape[1])


def test_progress_shows_texts_and_tokens_per_second(tmp_path, corpus, capsys):
    arguments = ["embed", corpus("txt"), "-o", str(tmp_path / "out.npy")]
    assert main([*arguments, "--progress"]) == 0
    shown = capsys.readouterr().err
    assert f"{len(TEXTS)} texts" in shown
    assert "texts/s" in shown
    assert "tokens/s" in shown
    assert "100%" in shown


def test_progress_is_silent_when_standard_error_is_no_terminal(tmp_path, corpus, capsys):
    assert main(["embed", corpus("txt"), "-o", str(tmp_path / "out.npy")]) == 0
    assert "texts/s" not in capsys.readouterr().err


def test_truncated_texts_give_a_warning_of_one_line(tmp_path, corpus, capsys):
    assert main(["embed", corpus("txt"), "-o", str(tmp_path / "out.npy")]) == 0
    assert capsys.readouterr().err == (
        "simdformer: warning: 1 of 6 texts were longer than 256 tokens; "
        "the rest of them was left out\n"
    )


def test_a_bad_line_is_named_and_leaves_the_old_file(tmp_path, capsys):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "good"}\n' * 16 + '{"text": 17}\n')
    (tmp_path / "out.npy").write_bytes(b"old")
    assert main(["embed", str(path), "-o", str(tmp_path / "out.npy")]) == 1
    assert capsys.readouterr().err == (
        f'simdformer: error: {path}, line 17: field "text" must be a string, got a number\n'
    )
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "out.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt", "-o", "out.npy"], "cannot read missing.txt: No such file or directory"),
        (["in.txt", "-o", "no/out.npy"], "cannot write no/out.npy: No such file or directory"),
        (["in.txt", "-o", "out.npy", "--model", "./no-such-model"], "no-such-model"),
        (["in.txt", "-o", "out.npy", "--prompt-name", "shout"], "shout"),
        (["in.txt", "-o", "out.parquet", "--prompt-name", "shout"], "shout"),
        (["in.txt", "-o", "out.npy", "--resume", "--prompt-name", "shout"], "shout"),
        (["in.txt", "-o", "out.npy", "--chunk", "9", "--prompt-name", "shout"], "shout"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a text\n")
    assert main(["embed", *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("simdformer: error: ")
    assert message in shown
    assert "Traceback" not in shown
    assert os.listdir(tmp_path) == ["in.txt"]


def test_a_result_that_is_not_finite_is_reported(tmp_path, capsys):
    weights = random_weights()
    weights["encoder.layer.1.output.LayerNorm.bias"][:] = 3e38
    folder = write_model(tmp_path / "m", weights=weights)
    (tmp_path / "in.txt").write_text("a text\n")
    arguments = [str(tmp_path / "in.txt"), "--model", str(folder), "-o", str(tmp_path / "out.npy")]
    assert main(["embed", *arguments]) == 1
    assert "the result for texts[0] is NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.txt"], "-o/--output"),
        (["in.docx", "-o", "out.npy"], "use --format"),
        (["in.txt", "-o", "out.txt"], "must end in .npy, .jsonl, .parquet"),
        (["in.jsonl", "-o", "./in.jsonl"], "INPUT and OUTPUT are the same file"),
        (["in.txt", "-o", "out.npy", "--num-threads", "0"], "expected a number above 0, got 0"),
        (["in.txt", "-o", "out.npy", "--max-batch-tokens", "x"], "--max-batch-tokens"),
        (["in.txt", "-o", "out.npy", "--format", "xml"], "--format"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").touch()
    (tmp_path / "in.jsonl").touch()
    with pytest.raises(SystemExit) as leaving:
        main(["embed", *arguments])
    assert leaving.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("simdformer embed: error: ")
    assert shown.endswith("(see simdformer embed --help)\n")
    assert message in shown
    assert shown.count("\n") == 1

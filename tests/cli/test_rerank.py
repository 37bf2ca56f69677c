"""simdformer rerank: the texts of a file in the order of a cross-encoder's scores."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest

from simdformer import CrossEncoder
from simdformer.cli import main
from tests.support.model_fixtures import write_cross_encoder

TEXTS = ["a cab", "deed", "", "the quick brown fox", "z", "deed"] * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_cross_encoder(tmp_path_factory.mktemp("models") / "m"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(text + "\n" for text in TEXTS))
    return str(path)


def test_the_order_and_the_scores_are_those_of_rank(folder, corpus, capsys):
    queries = ["fox", "a cab"]
    arguments = ["--in", corpus, "--model", folder, "--top", "70", "--json"]
    assert main(["rerank", *queries, *arguments]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["query"] for answer in answers] == queries
    model = CrossEncoder(folder)
    for query, answer in zip(queries, answers, strict=True):
        expected = model.rank(query, TEXTS, top_k=70, return_documents=True)
        assert answer["matches"] == [
            {"rank": i, "score": hit["score"], "line": hit["corpus_id"] + 1, "text": hit["text"]}
            for i, hit in enumerate(expected, start=1)
        ]


def test_the_printed_form_has_query_score_line_and_text(folder, corpus, capsys):
    assert main(["rerank", "fox", "--in", corpus, "--model", folder, "--top", "1"]) == 0
    query, match = capsys.readouterr().out.splitlines()
    assert query == "fox"
    assert re.fullmatch(r"  +\d\.\d{4}  line \d: .*", match)


def test_the_texts_may_come_from_csv_and_from_standard_input(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"id,body\n1,deed\n2,z\n")))
    arguments = ["--in", "-", "--format", "csv", "--field", "body", "--model", folder, "--json"]
    assert main(["rerank", "a", *arguments]) == 0
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert {(match["text"], match["line"]) for match in matches} == {("deed", 2), ("z", 3)}


def test_an_input_without_texts_is_reported(tmp_path, folder, capsys):
    (tmp_path / "empty.txt").touch()
    assert main(["rerank", "x", "--in", str(tmp_path / "empty.txt"), "--model", folder]) == 0
    assert "the corpus is empty" in capsys.readouterr().out


def test_pairs_that_are_too_long_are_counted(tmp_path, folder, capsys):
    (tmp_path / "long.txt").write_text("a b c " * 60 + "\nshort\n")
    arguments = ["--in", str(tmp_path / "long.txt"), "--model", folder]
    assert main(["rerank", "x", "y", *arguments, "--progress"]) == 0
    shown = capsys.readouterr().err
    assert "warning: 2 of 4 pairs were longer than 100 tokens" in shown
    assert "rerank: 100%" in shown


def test_a_model_must_be_named(corpus):
    with contextlib.redirect_stderr(io.StringIO()) as stderr, pytest.raises(SystemExit) as leaving:
        main(["rerank", "x", "--in", corpus])
    assert leaving.value.code == 2
    assert "required: --model" in stderr.getvalue()


def assert_fails(arguments, message):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        assert main(["rerank", *arguments]) == 1
    assert re.search(message, stderr.getvalue())
    assert "Traceback" not in stderr.getvalue()


def test_unsuitable_arguments_are_reported(tmp_path, folder, corpus):
    several = str(write_cross_encoder(tmp_path / "several", 3))
    assert_fails(["x", "--in", corpus, "--model", several], "gives 3 scores per pair; rerank needs")
    no_head = str(write_cross_encoder(tmp_path / "no-head", architectures=["BertModel"]))
    assert_fails(["x", "--in", corpus, "--model", no_head], "use SentenceTransformer")
    assert_fails(["x", "--in", corpus, "--model", str(tmp_path / "none")], "no model")
    assert_fails(["\udcff", "--in", corpus, "--model", folder], "QUERY holds the lone surrogate")


def test_a_score_that_cannot_be_computed_is_reported(folder, corpus, monkeypatch):
    def fail(*_):
        raise ValueError("the result for texts[0] is NaN or infinite")

    monkeypatch.setattr(CrossEncoder, "predict", fail)
    assert_fails(["x", "--in", corpus, "--model", folder], "NaN or infinite")

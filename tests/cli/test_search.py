"""simdformer search: the best of the corpus, in order."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from simdformer.cli import main
from simdformer.cli.matches import Match, TopMatches
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


def found(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_nearest_texts_come_first(corpus, capsys):
    assert main(["search", "felines", "--in", corpus, "--top", "2", "--json"]) == 0
    (answer,) = found(capsys)
    assert answer["query"] == "felines"
    assert {match["text"] for match in answer["matches"]} == {CORPUS[1], CORPUS[3]}
    assert [match["rank"] for match in answer["matches"]] == [1, 2]
    assert answer["matches"][0]["score"] >= answer["matches"][1]["score"]


def test_a_text_is_its_own_best_match_with_score_1(corpus, capsys):
    assert main(["search", CORPUS[4], "--in", corpus, "--top", "1", "--json"]) == 0
    (answer,) = found(capsys)
    (match,) = answer["matches"]
    assert (match["text"], match["line"]) == (CORPUS[4], 5)
    assert match["score"] == pytest.approx(1, abs=1e-6)


def test_several_queries_are_answered_in_their_order(corpus, capsys):
    assert main(["search", "money", "weather", "--in", corpus, "--top", "1", "--json"]) == 0
    answers = found(capsys)
    assert [answer["query"] for answer in answers] == ["money", "weather"]
    assert [answer["matches"][0]["text"] for answer in answers] == [CORPUS[0], CORPUS[4]]


def test_more_matches_than_texts_gives_all_texts(corpus, capsys):
    assert main(["search", "x", "--in", corpus, "--top", "50", "--json"]) == 0
    assert len(found(capsys)[0]["matches"]) == len(CORPUS)


def test_the_printed_form_has_query_score_line_and_text(corpus, capsys):
    assert main(["search", "software", "--in", corpus, "--top", "1"]) == 0
    query, match = capsys.readouterr().out.splitlines()
    assert query == "software"
    assert match.endswith(f"line 3: {CORPUS[2]}")


def test_the_printed_form_is_one_line_per_match_without_control_characters(tmp_path, capsys):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"text": "red \x1b[31m\nnext\tline " + "and more " * 100}))
    assert main(["search", "x", "--in", str(path)]) == 0
    _, match = capsys.readouterr().out.splitlines()
    assert match.isprintable()
    assert match.endswith("…")


def test_an_empty_corpus_is_reported(tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    assert main(["search", "x", "--in", str(tmp_path / "empty.txt")]) == 0
    assert "the corpus is empty" in capsys.readouterr().out


def test_the_corpus_may_come_from_standard_input(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(CORPUS).encode())))
    assert main(["search", "money", "--in", "-", "--top", "1", "--json"]) == 0
    assert found(capsys)[0]["matches"][0]["line"] == 1


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 0, 7], [9, 1]])
def test_top_matches_are_those_of_a_whole_sort(rng, sizes):
    scores = rng.integers(0, 4, sum(sizes)).astype(np.float32)  # many ties
    records = [Record(f"text {i}", i) for i in range(sum(sizes))]
    top = TopMatches(4)
    start = 0
    for size in sizes:
        top.add(scores[start : start + size], records[start : start + size])
        start += size
    expected = sorted(range(sum(sizes)), key=lambda i: (-scores[i], i))[:4]
    assert top.best == [Match(float(scores[i]), records[i]) for i in expected]

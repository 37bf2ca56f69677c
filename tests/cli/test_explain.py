"""simdformer explain: its files are written completely or not at all."""

from __future__ import annotations

import json

import pytest

from simdformer import SentenceTransformer, explain
from simdformer.cli import main
from tests.support.model_fixtures import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "m")


def run(folder, *arguments):
    return main(["explain", *map(str, arguments), "--model", str(folder)])


def test_page_and_json_are_the_reports(folder, tmp_path):
    page, numbers = tmp_path / "new" / "page.html", tmp_path / "page.json"
    assert run(folder, "a cab", "deed", "-o", page, "--json", numbers) == 0
    report = explain.explain_texts(SentenceTransformer(str(folder)), "a cab", "deed")
    assert page.read_text("utf-8") == report.to_html()
    assert json.loads(numbers.read_text("utf-8")) == report.to_dict()
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["page.html", "page.json"]


def test_a_page_may_go_to_standard_output(folder, capsysbinary):
    assert run(folder, "a cab", "-o", "-") == 0
    assert capsysbinary.readouterr().out.startswith(b"<!DOCTYPE html>")


def test_nothing_is_written_if_something_is_wrong(tmp_path, capsys):
    page = tmp_path / "page.html"
    page.write_text("before")
    assert run(tmp_path / "none", "a", "-o", page) == 1
    assert "none" in capsys.readouterr().err
    assert page.read_text() == "before"


def test_a_page_that_cannot_be_written_leaves_nothing_behind(folder, tmp_path, capsys):
    assert run(folder, "a", "-o", tmp_path) == 1
    assert "is a directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_text_is_reported(folder, tmp_path, capsys):
    assert run(folder, "a " * 120, "-o", tmp_path / "page.html") == 0
    assert "1 of 1 texts were longer than 100 tokens" in capsys.readouterr().err


def test_prompts_are_put_before_their_texts(tmp_path, capsys):
    prompts = {"config_sentence_transformers.json": {"prompts": {"q": "quick ", "d": "lazy "}}}
    folder = write_model(tmp_path / "m", files=prompts)
    numbers = tmp_path / "page.json"
    files = ["-o", tmp_path / "page.html", "--json", numbers]
    assert run(folder, "fox", "dog", *files, "--prompt-name", "q", "--prompt-name2", "d") == 0
    [pairs] = json.loads(numbers.read_text())["sections"][0]["figures"]
    assert pairs["y_ticks"][1:3] == ["q", "##u"]
    assert pairs["x_ticks"][1:3] == ["l", "##a"]
    assert run(folder, "fox", *files, "--prompt-name", "x") == 1
    assert "unknown prompt name 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        ["-o", "page.html"],
        ["a", "-o", "page.html", "--prompt-name2", "q"],
        ["a", "--points", "-o", "page.html"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as leaving:
        main(["explain", *arguments])
    assert leaving.value.code == 2


def test_a_missing_matplotlib_is_reported_before_the_model_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("simdformer.cli.explain.find_spec", lambda name: None)  # noqa: ARG005
    arguments = ["a", "-o", tmp_path / "page.html", "--figures", tmp_path / "figures"]
    assert run(tmp_path / "no model", *arguments) == 1
    assert 'pip install "simdformer[plots]"' in capsys.readouterr().err


def test_points_are_a_page_too(folder, tmp_path, monkeypatch):
    from simdformer.explain.points import sequence

    monkeypatch.setattr(sequence, "_LENGTHS", (4, 8))
    monkeypatch.setattr(sequence, "find_spec", lambda name: None)  # noqa: ARG005
    numbers = tmp_path / "points.json"
    assert run(folder, "--points", "-o", tmp_path / "points.html", "--json", numbers) == 0
    assert len(json.loads(numbers.read_text())["sections"]) == 8

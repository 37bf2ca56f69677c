"""simdformer classify: labels of texts, and entities in them."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest

from simdformer import pipeline
from simdformer.cli import main
from tests.support.model_fixtures import write_cross_encoder
from tests.support.task_models import write_masked_model, write_tagger

TEXTS = ["a cab", "deed", "", "the quick brown fox", "z"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    label2id = {"contradiction": 0, "neutral": 1, "entailment": 2}
    return str(write_cross_encoder(tmp_path_factory.mktemp("m") / "m", 3, label2id=label2id))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return str(write_tagger(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(text + "\n" for text in TEXTS))
    return str(path)


def lines(capsys, *arguments):
    assert main(["classify", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_text_gets_its_best_label(folder, corpus, capsys):
    best = pipeline("text-classification", folder)(TEXTS)
    assert lines(capsys, corpus, "--model", folder) == [
        {"line": line, "text": text} | found
        for line, (text, found) in enumerate(zip(TEXTS, best, strict=True), 1)
    ]


def test_top_k_lists_labels(folder, corpus, capsys):
    model = pipeline("text-classification", folder, top_k=2, function_to_apply="sigmoid")
    arguments = ["--top-k", "2", "--function-to-apply", "sigmoid"]
    found = lines(capsys, corpus, "--model", folder, *arguments)
    assert [line["labels"] for line in found] == model(TEXTS)


def test_labels_of_the_user_are_ordered_by_entailment(folder, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("key,body\n7,deed\n8,fox\n")
    arguments = [
        "--labels",
        "a,b",
        "--hypothesis-template",
        "is {}",
        "--multi-label",
        "--top-k",
        "2",
    ]
    texts = [str(tmp_path / "t.csv"), "--field", "body", "--id", "key"]
    found = lines(capsys, *texts, "--model", folder, *arguments)
    model = pipeline("zero-shot-classification", folder, candidate_labels="a,b")
    wanted = model(["deed", "fox"], hypothesis_template="is {}", multi_label=True)
    for line, key, result in zip(found, "78", wanted, strict=True):
        assert (line["id"], line["text"]) == (key, result["sequence"])
        assert [entry["label"] for entry in line["labels"]] == result["labels"]
        assert [entry["score"] for entry in line["labels"]] == result["scores"]


def test_a_token_classification_model_finds_entities(tagger, corpus, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = [corpus, "--model", tagger, "-o", str(out), "--aggregation-strategy", "max"]
    assert main(["classify", *arguments]) == 0
    model = pipeline("ner", tagger, aggregation_strategy="max")
    found = [json.loads(line)["entities"] for line in out.read_text().splitlines()]
    assert found == model(TEXTS)
    assert any(found)


def test_long_texts_are_cut_and_counted_or_read_in_pieces(folder, tagger, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("a b c " * 60 + "\nshort\n")
    assert main(["classify", str(tmp_path / "long.txt"), "--model", folder, "--progress"]) == 0
    shown = capsys.readouterr().err
    assert "warning: 1 of 2 texts were longer than 100 tokens" in shown
    assert "classify: 100%" in shown
    assert main(["classify", str(tmp_path / "long.txt"), "--model", tagger, "--stride", "4"]) == 0
    assert "longer" not in capsys.readouterr().err


def test_records_that_cannot_be_used_are_left_out(folder, tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"no": 1}\n{"text": "b"}\n')
    arguments = [str(tmp_path / "t.jsonl"), "--model", folder, "--on-error", "skip"]
    assert main(["classify", *arguments]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 3]
    assert "2 texts classified, 1 records skipped" in err


def test_empty_texts_are_refused_or_left_out_with_labels(folder, corpus, capsys):
    arguments = [corpus, "--model", folder, "--labels", "a,b"]
    assert main(["classify", *arguments]) == 1
    assert f"{corpus}, line 3: --labels needs a text, got none" in capsys.readouterr().err
    assert [line["line"] for line in lines(capsys, *arguments, "--on-error", "skip")] == [
        1,
        2,
        4,
        5,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", ""], "--labels has no label"),
        (["--labels", "a", "--hypothesis-template", "b"], "--hypothesis-template 'b' has no {}"),
    ],
)
def test_labels_that_cannot_be_used_are_wrong_usage(folder, corpus, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(["classify", corpus, "--model", folder, *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "100"], "--stride must be less than 38"),
        (["--stride", "3", "--aggregation-strategy", "none"], "--stride needs an --aggregation"),
    ],
)
def test_a_stride_that_cannot_be_used_is_wrong_usage(tagger, corpus, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(["classify", corpus, "--model", tagger, *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "3"], "--stride is for token-classification, not for text-classification"),
        (["--multi-label"], "--multi-label is for zero-shot-classification"),
        (["-o", "labels.csv"], r"must end in \.jsonl"),
        (["--errors", "e.jsonl"], "--errors needs --on-error skip"),
    ],
)
def test_arguments_that_do_not_fit_are_wrong_usage(folder, corpus, arguments, message):
    with contextlib.redirect_stderr(io.StringIO()) as shown, pytest.raises(SystemExit) as leaving:
        main(["classify", corpus, "--model", folder, *arguments])
    assert leaving.value.code == 2
    assert re.search(message, shown.getvalue())


def test_a_model_for_another_task_is_said(tmp_path, corpus, capsys):
    masked = str(write_masked_model(tmp_path / "m"))
    assert main(["classify", corpus, "--model", masked]) == 1
    assert "is a model for fill-mask" in capsys.readouterr().err
    headless = str(write_cross_encoder(tmp_path / "h", architectures=["BertModel"]))
    assert main(["classify", corpus, "--model", headless]) == 1
    assert "names no task" in capsys.readouterr().err

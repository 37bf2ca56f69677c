"""simdformer info, and the command as a whole: the information about itself and about a model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from simdformer import CrossEncoder, SentenceTransformer, __version__, show_config
from simdformer.cli import info, main
from tests.support.model_fixtures import (
    TINY,
    classifier_weights,
    config_json,
    modules_json,
    write_cross_encoder,
    write_dense,
    write_model,
)
from tests.support.task_models import write_masked_model, write_tagger
from tests.support.tiny_bert import random_weights
from tests.support.torch_files import write_torch

MODEL = "all-MiniLM-L6-v2"


def described(capsys, *arguments):
    assert main(["info", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_info_shows_the_configuration(capsys):
    assert described(capsys) == {"simdformer": show_config("dicts")}


def test_info_of_a_model_agrees_with_the_loaded_model(capsys):
    shown = described(capsys, MODEL)["model"]
    model = SentenceTransformer(MODEL)
    assert shown["embedding_dimension"] == model.get_embedding_dimension()
    assert shown["max_seq_length"] == model.max_seq_length
    assert shown["compute_type"] == model.compute_type == "float32"
    assert shown["similarity"] == model.similarity_fn_name
    assert shown["prompts"] == model.prompts


def test_info_of_a_model_shows_its_architecture(capsys):
    shown = described(capsys, MODEL)["model"]
    assert shown["architecture"] == "bert"
    assert (shown["num_hidden_layers"], shown["hidden_size"]) == (6, 384)
    assert shown["pooling"] == ["mean"]
    assert shown["normalize"] is True
    # The files contain 22,713,216 float32 weights of 4 bytes each, and a short header.
    assert shown["parameters"] == 22_713_216
    assert 0 < shown["files"]["model.safetensors"] - 4 * shown["parameters"] < 100_000


def test_info_lists_the_files_with_their_sizes(capsys):
    shown = described(capsys, MODEL)["model"]
    for name, size in shown["files"].items():
        assert (Path(shown["folder"]) / name).stat().st_size == size
    assert {"config.json", "tokenizer.json", "modules.json"} <= shown["files"].keys()


def test_info_counts_and_lists_the_weights_that_are_read(tmp_path, capsys):
    """Weights of the same model in another format are not counted."""
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    weight, bias = write_dense(folder / "2_Dense", TINY.hidden_size, 7)
    (folder / "2_Dense" / "model.safetensors").unlink()
    write_torch(
        folder / "2_Dense" / "pytorch_model.bin", {"linear.weight": weight, "linear.bias": bias}
    )
    write_torch(folder / "pytorch_model.bin", random_weights())
    shown = described(capsys, str(folder))["model"]
    expected = sum(w.size for w in random_weights().values()) + weight.size + bias.size
    assert shown["parameters"] == expected
    weights = {"model.safetensors", "2_Dense/pytorch_model.bin"}
    assert weights == {name for name in shown["files"] if not name.endswith(".json")}


def printed_lines(capsys, folder):
    assert main(["info", str(folder)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_info_of_a_cross_encoder_agrees_with_the_loaded_model(tmp_path, capsys):
    folder = write_cross_encoder(tmp_path / "m", 3)
    shown = described(capsys, str(folder))["model"]
    model = CrossEncoder(folder)
    assert shown["class"] == "CrossEncoder"
    assert shown["head"] == "BertForSequenceClassification"
    assert shown["num_labels"] == model.num_labels == 3
    assert shown["activation_fn"] == model.activation_fn.name == "Identity"
    assert shown["max_seq_length"] == model.max_seq_length == 100
    assert shown["compute_type"] == model.compute_type == "float32"
    assert shown["parameters"] == sum(w.size for w in classifier_weights(3).values())
    assert {"config.json", "model.safetensors"} <= shown["files"].keys()


def test_info_of_a_cross_encoder_has_no_fields_of_embeddings(tmp_path, capsys):
    shown = described(capsys, str(write_cross_encoder(tmp_path / "m")))["model"]
    embeddings = {"pooling", "dense_layers", "normalize", "embedding_dimension", "similarity"}
    assert not embeddings & shown.keys()


@pytest.mark.parametrize(
    ("config", "activation"),
    [({}, "Sigmoid"), ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "Tanh")],
)
def test_info_prints_a_cross_encoders_activation(tmp_path, capsys, config, activation):
    lines = printed_lines(capsys, write_cross_encoder(tmp_path / "m", **config))
    assert ["activation_fn", activation] in lines
    assert ["num_labels", "1"] in lines


def test_info_recognizes_a_cross_encoder_by_its_modules_too(tmp_path, capsys):
    files = {"modules.json": modules_json(["Transformer"])}
    folder = write_cross_encoder(tmp_path / "m", files=files)
    assert described(capsys, str(folder))["model"]["class"] == "CrossEncoder"


def test_info_of_an_embedding_model_made_of_a_classifier_describes_its_embeddings(tmp_path, capsys):
    config = config_json(architectures=["BertForSequenceClassification"])
    folder = write_model(tmp_path / "m", files={"config.json": config})
    shown = described(capsys, str(folder))["model"]
    assert (shown["class"], shown["pooling"]) == ("SentenceTransformer", ["mean"])
    assert "num_labels" not in shown


def test_info_of_a_cross_encoder_without_its_head_names_the_tensor(tmp_path, capsys):
    weights = classifier_weights()
    del weights["classifier.bias"]
    folder = write_cross_encoder(tmp_path / "m", weights=weights)
    assert main(["info", str(folder)]) == 1
    assert "tensor 'classifier.bias' is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            write_tagger,
            {
                "task": "token-classification",
                "head": "BertForTokenClassification",
                "labels": ["O", "B-X", "I-X", "B-Y"],
            },
        ),
        (
            write_masked_model,
            {"task": "fill-mask", "head": "BertForMaskedLM", "mask_token": "[MASK]"},
        ),
    ],
)
def test_info_knows_models_of_other_tasks(tmp_path, capsys, write, expected):
    shown = described(capsys, str(write(tmp_path / "m")))["model"]
    assert expected.items() <= shown.items()
    assert (shown["max_seq_length"], shown["architecture"]) == (40, "bert")
    assert "embedding_dimension" not in shown


def test_info_prints_one_value_per_line(capsys):
    assert main(["info", MODEL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "simdformer"
    assert ["embedding_dimension", "384"] in [line.split() for line in lines]
    assert ["architecture", "bert"] in [line.split() for line in lines]


def test_info_of_a_missing_model_lists_the_searched_places(capsys):
    assert main(["info", "./no-such-model"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("simdformer: error: no model './no-such-model'")
    assert "Traceback" not in shown


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"simdformer {__version__}\n"


@pytest.mark.parametrize(
    "command", [[], ["embed"], ["search"], ["rerank"], ["classify"], ["explain"], ["info"]]
)
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as leaving:
        main([*command, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert f"\nexamples:\n  {' '.join(['simdformer', *command])}" in shown


@pytest.mark.parametrize("arguments", [["fly"], ["search", "x"], ["info", "--top", "3"]])
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


def test_warnings_for_developers_are_not_shown(monkeypatch, capsys):
    """An import interrupted by Ctrl-C causes such a warning, about the file that it left open."""

    def run(args):  # noqa: ARG001
        for category in (ResourceWarning, DeprecationWarning, ImportWarning, UserWarning):
            warnings.warn(f"a {category.__name__}", category, stacklevel=1)

    monkeypatch.setattr(info, "run", run)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "simdformer: warning: a UserWarning\n"


def test_a_missing_package_is_reported(tmp_path, capsys, monkeypatch):
    def fail(_):
        raise ImportError("the chat template needs jinja2")

    monkeypatch.setattr(info, "describe_model", fail)
    assert main(["info", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "simdformer: error: the chat template needs jinja2\n"

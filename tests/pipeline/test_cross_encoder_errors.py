"""Errors of CrossEncoder, and Ctrl-C during a call."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from simdformer import CrossEncoder
from tests.support import ROOT
from tests.support.model_fixtures import (
    PAIRS,
    classifier_weights,
    modules_json,
    write_cross_encoder,
    write_model,
)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return CrossEncoder(write_cross_encoder(tmp_path_factory.mktemp("models") / "m"))


def refused(tmp_path, match, error=ValueError, **options):
    folder = write_cross_encoder(tmp_path / "m", **options)
    with pytest.raises(error, match=match):
        CrossEncoder(folder)


# Pairs


@pytest.mark.parametrize("inputs", ["ab", b"ab", 3, None, {"a": "b"}, {"a", "b"}, np.array("a")])
def test_inputs_that_are_not_a_sequence_are_refused(single, inputs):
    with pytest.raises(TypeError, match="inputs must be a pair of str or a sequence of pairs, got"):
        single.predict(inputs)


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        (["a", 3], TypeError, r"inputs\[1\] must be a str, got int"),
        ([None, "a"], TypeError, r"inputs\[0\] must be a str, got NoneType"),
        (["a", "b", "c"], ValueError, "inputs must be a pair of str, got 3 elements"),
        ([*PAIRS, ("a", b"b")], TypeError, r"inputs\[5\]\[1\] must be a str, got bytes"),
        ([*PAIRS, ("a",)], ValueError, r"inputs\[5\] must be a pair of str, got 1 elements"),
        ([*PAIRS, "ab"], TypeError, r"inputs\[5\] must be a pair of str, got str"),
        ([*PAIRS, ("a", "x\ud800")], ValueError, r"inputs\[5\]\[1\] holds the lone surrogate"),
    ],
)
def test_an_input_that_is_not_a_pair_of_str_is_named_by_its_index(single, inputs, error, match):
    with pytest.raises(error, match=match):
        single.predict(inputs)


@pytest.mark.parametrize(
    ("query", "documents", "error", "match"),
    [
        (3, ["a"], TypeError, "query must be a str, got int"),
        ("x\ud800", ["a"], ValueError, "query holds the lone surrogate"),
        ("a", "abc", TypeError, "documents must be a sequence of str, got str"),
        ("a", None, TypeError, "documents must be a sequence of str, got NoneType"),
        ("a", ["b", None], TypeError, r"documents\[1\] must be a str, got NoneType"),
        ("a", ["b", "\udfff"], ValueError, r"documents\[1\] holds the lone surrogate"),
    ],
    ids=repr,
)
def test_bad_texts_of_rank_are_named(single, query, documents, error, match):
    with pytest.raises(error, match=match):
        single.rank(query, documents)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"prompt_name": "x"}, r"unknown prompt name 'x'; known: \[\]"),
        ({"device": "cuda"}, "device must be None or 'cpu', got 'cuda'"),
        ({"pool": {}}, "pool must be a result of start_multi_process_pool, got {}"),
        ({"chunk_size": 0}, "chunk_size must be a positive integer, got 0"),
        ({"foo": 1}, "got unknown arguments: foo"),
        ({"activation_fn": "os.system"}, "must be a class of torch.nn, got 'os.system'"),
        ({"activation_fn": "torch.nn.Mush"}, "unknown activation_fn 'torch.nn.Mush'; known"),
        ({"activation_fn": lambda x: x[:, 0]}, r"activation_fn must keep the shape \(1, 1\)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_argument_is_named(single, arguments, match):
    with pytest.raises(ValueError, match=match):
        single.predict(PAIRS[:1], **arguments)
    with pytest.raises(ValueError, match=match):
        single.rank("a", ["b"], **arguments)


def test_an_activation_that_is_not_a_function_is_refused(single):
    with pytest.raises(TypeError, match=r"must be a name of torch\.nn or a function"):
        single.predict(PAIRS, activation_fn=3)


@pytest.mark.parametrize("top_k", [0, -1, 1.5])
def test_top_k_must_be_a_positive_number(single, top_k):
    with pytest.raises(ValueError, match="top_k must be a positive integer"):
        single.rank("a", ["b"], top_k=top_k)


def test_a_model_of_several_labels_does_not_rank(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m", 3))
    with pytest.raises(ValueError, match="one score per pair, this one has 3: use predict"):
        model.rank("a", ["b"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"compute_type": "int3"}, "unknown compute_type 'int3'; known: default, "),
        ({"num_threads": 0}, "num_threads must be a positive integer, got 0"),
        ({"num_labels": 3}, "num_labels=3, but .* has 1"),
        ({"max_length": 131}, "max_length must be at most 130, the model's positions, got 131"),
        ({"max_length": 2}, r"max_seq_length must be at least 3 \(3 special tokens\), got 2"),
        ({"activation_fn": "Sigmoid"}, "must be a class of torch.nn, got 'Sigmoid'"),
        ({"default_prompt_name": "x"}, "unknown prompt name 'x'"),
        ({"device": "cuda"}, "device must be None or 'cpu'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_argument_of_the_constructor_is_named(tmp_path, arguments, match):
    folder = write_cross_encoder(tmp_path / "m")
    with pytest.raises(ValueError, match=match):
        CrossEncoder(folder, **arguments)


# Folders


@pytest.mark.parametrize(
    "architectures",
    [["BertModel"], ["DebertaForSequenceClassification"], None, [], "BertForSequenceClass", [3]],
)
def test_the_error_for_an_unknown_head_suggests_another_class(tmp_path, architectures):
    match = "known: AlbertForSequenceClassification, .*; for embeddings .* use SentenceTransformer"
    refused(tmp_path, match, architectures=architectures)


def test_the_error_for_an_embedding_model_suggests_sentence_transformer(tmp_path):
    with pytest.raises(ValueError, match=r"Transformer -> Pooling; .* use SentenceTransformer"):
        CrossEncoder(write_model(tmp_path / "m"))


def test_a_module_that_leaves_the_folder_is_refused(tmp_path):
    modules = modules_json(["Transformer"])
    modules[0]["path"] = "../x"
    files = {"modules.json": modules}
    refused(tmp_path, "module paths must stay in the model folder", files=files)


def test_a_transformer_of_another_task_is_refused(tmp_path):
    files = {
        "modules.json": modules_json(["Transformer"]),
        "sentence_bert_config.json": {"transformer_task": "feature-extraction"},
    }
    refused(tmp_path, "unknown transformer_task 'feature-extraction'; known: 'seq", files=files)


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Mush"}},
        {"sentence_transformers": {"activation_fn": "torch.save"}},
        {"sentence_transformers": ["torch.nn.Tanh"]},
        {"sbert_ce_default_activation_function": 7},
    ],
    ids=str,
)
def test_an_unknown_saved_activation_is_refused(tmp_path, config):
    match = (
        r"in config.json ('.*; known of torch.nn: AlphaDropout, CELU|must be the path of a class)"
    )
    refused(tmp_path, match, **config)


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "evil.Tanh"}},
        {"sbert_ce_default_activation_function": "os.system"},
    ],
    ids=str,
)
def test_an_activation_of_another_package_is_replaced_by_the_default_with_a_warning(
    tmp_path, config
):
    folder = write_cross_encoder(tmp_path / "m", **config)
    with pytest.warns(UserWarning, match="is not a class of torch and is not run; Sigmoid instead"):
        model = CrossEncoder(folder)
    plain = CrossEncoder(write_cross_encoder(tmp_path / "plain"))
    np.testing.assert_array_equal(model.predict(PAIRS), plain.predict(PAIRS))


@pytest.mark.parametrize("name", ["bert.pooler.dense.bias", "classifier.weight"])
def test_a_missing_tensor_of_the_head_is_named(tmp_path, name):
    weights = classifier_weights()
    del weights[name]
    refused(tmp_path, f"tensor '{name}' is missing from the checkpoint", weights=weights)


def test_an_error_names_labels_that_differ_from_the_head(tmp_path):
    match = "tensor 'classifier.weight' in model.safetensors has shape (3, 20); config.json"
    match += " (num_labels=1, hidden_size=20) needs (1, 20)"
    refused(tmp_path, re.escape(match), weights=classifier_weights(3))


@pytest.mark.parametrize("labels", [{}, ["a"], 3])
def test_labels_of_another_format_are_refused(tmp_path, labels):
    refused(tmp_path, "id2label must map indices to names", id2label=labels)


# Ctrl-C

LONG_PREDICT = """
import sys
from simdformer import CrossEncoder
model = CrossEncoder(sys.argv[1])
pairs = [("the quick brown fox", "jumps over the lazy dog")] * 2_000_000
print("ready", flush=True)
try:
    model.predict(pairs)
except KeyboardInterrupt:
    print("interrupted", model.predict(pairs[:3]).shape)
else:
    print("finished")
"""


def test_ctrl_c_interrupts_a_long_call(tmp_path):
    folder = write_cross_encoder(tmp_path / "m")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", LONG_PREDICT, folder],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            threading.Event().wait(1.0)  # during the work, which takes minutes
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert output == "interrupted (3,)\n"

"""Classification heads of some architectures only: ModernBERT's norm, poolings and biases, and the last token
of a decoder."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder
from tests import oracle
from tests.support import normal
from tests.support.model_fixtures import CLOSE, PAIRS
from tests.support.tiny_models import TINY
from tests.support.tiny_rotary import EUROBERT, MODERNBERT, QWEN3

D, LABELS = TINY.hidden_size, 3
BARE = {"modules.json": None, "sentence_bert_config.json": None, "1_Pooling/config.json": None}


def modernbert_head(rng, bias=False, norm_bias=False):
    head = {
        "head.dense.weight": normal(rng, D, D, scale=D**-0.5),
        "head.norm.weight": 1 + normal(rng, D, scale=0.1),
        "classifier.weight": normal(rng, LABELS, D, scale=D**-0.5),
        "classifier.bias": normal(rng, LABELS),
    }
    head |= {"head.dense.bias": normal(rng, D)} if bias else {}
    return head | ({"head.norm.bias": normal(rng, D)} if norm_bias else {})


def write(folder, architecture, classes, head, **config):
    weights = {
        architecture.prefix + name: tensor
        for name, tensor in architecture.renamed(architecture.weights()).items()
    }
    labels = {str(i): f"LABEL_{i}" for i in range(LABELS)}
    fields = architecture.fields(architectures=[classes], id2label=labels, **config)
    files = {"config.json": fields} | BARE
    return architecture.write(folder, weights=weights | head, files=files)


@pytest.mark.parametrize("pooling", [None, "bos", "late", "mean"])
def test_euroberts_head_follows_the_oracle(tmp_path, pooling):
    rng = np.random.default_rng(3)
    head = {
        "dense.weight": normal(rng, D, D, scale=D**-0.5),
        "dense.bias": normal(rng, D),
        "classifier.weight": normal(rng, LABELS, D, scale=D**-0.5),
        "classifier.bias": normal(rng, LABELS),
    }
    fields = {} if pooling is None else {"classifier_pooling": pooling}
    classes = "EuroBertForSequenceClassification"
    folder = write(tmp_path / "m", EUROBERT, classes, head, **fields)

    def dense(x):
        return oracle.gelu(oracle.linear(x, head["dense.weight"], head["dense.bias"]))

    behind = {
        "bos": lambda x: dense(x[0]),
        "late": lambda x: dense(x).mean(axis=0),
        "mean": lambda x: dense(x.mean(axis=0)),
    }[pooling or "late"]
    rows = np.array([behind(states) for states in EUROBERT.states_of_pairs(PAIRS)])
    expected = oracle.linear(rows, head["classifier.weight"], head["classifier.bias"])
    found = CrossEncoder(folder, activation_fn="torch.nn.Identity").predict(PAIRS)
    np.testing.assert_allclose(found, expected, **CLOSE)
    int8 = CrossEncoder(folder, activation_fn="torch.nn.Identity", compute_type="int8")
    assert np.abs(int8.predict(PAIRS) - expected).max() < 0.2


def test_another_pooling_of_euroberts_head_is_refused(tmp_path):
    classes, rng = "EuroBertForSequenceClassification", np.random.default_rng(3)
    head = {
        "dense.weight": normal(rng, D, D),
        "dense.bias": normal(rng, D),
        "classifier.weight": normal(rng, LABELS, D),
        "classifier.bias": normal(rng, LABELS),
    }
    folder = write(tmp_path / "m", EUROBERT, classes, head, classifier_pooling="cls")
    with pytest.raises(ValueError, match="unknown classifier_pooling 'cls'; known: 'bos', 'late'"):
        CrossEncoder(folder)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("bias", [False, True])
def test_modernberts_head_follows_the_oracle(tmp_path, pooling, activation, bias):
    head = modernbert_head(np.random.default_rng(3), bias)
    options = {"classifier_pooling": pooling, "classifier_activation": activation}
    folder = write(
        tmp_path, MODERNBERT, "ModernBertForSequenceClassification", head,
        **options, classifier_bias=bias,
    )  # fmt: skip
    pooled = np.array(
        [oracle.pool(pooling, states) for states in MODERNBERT.states_of_pairs(PAIRS)]
    )
    hidden = oracle.linear(pooled, head["head.dense.weight"], head.get("head.dense.bias"))
    normed = oracle.layer_norm(oracle.ACTIVATIONS[activation](hidden), head["head.norm.weight"])
    expected = oracle.linear(normed, head["classifier.weight"], head["classifier.bias"])
    np.testing.assert_allclose(CrossEncoder(folder).predict(PAIRS), expected, **CLOSE)


def test_modernberts_head_has_cls_and_gelu_by_default(tmp_path):
    head = modernbert_head(np.random.default_rng(3))
    said = {"classifier_pooling": "cls", "classifier_activation": "gelu", "classifier_bias": False}
    folders = [
        write(tmp_path / str(i), MODERNBERT, "ModernBertForSequenceClassification", head, **options)
        for i, options in enumerate(({}, said))
    ]
    found = [CrossEncoder(folder).predict(PAIRS) for folder in folders]
    np.testing.assert_array_equal(*found)


def test_a_decoders_head_reads_the_last_token(tmp_path):
    head = {"score.weight": normal(np.random.default_rng(3), LABELS, D, scale=D**-0.5)}
    folder = write(tmp_path, QWEN3, "Qwen3ForSequenceClassification", head)
    last = np.array([states[-1] for states in QWEN3.states_of_pairs(PAIRS)])
    expected = oracle.linear(last, head["score.weight"])
    np.testing.assert_allclose(CrossEncoder(folder).predict(PAIRS), expected, **CLOSE)


def test_a_decoders_head_skips_padding_at_the_end(tmp_path):
    """As in transformers: the last token is the last one that is not pad_token_id."""
    head = {"score.weight": normal(np.random.default_rng(3), LABELS, D, scale=D**-0.5)}
    classes, end = "Qwen3ForSequenceClassification", QWEN3.ids("")[-1]
    folder = write(tmp_path, QWEN3, classes, head, pad_token_id=int(end))
    last = np.array([states[-2] for states in QWEN3.states_of_pairs(PAIRS)])
    pairs = [pair for pair in PAIRS if pair[1]]  # otherwise two such tokens are at the end
    expected = oracle.linear(last, head["score.weight"])[[bool(pair[1]) for pair in PAIRS]]
    np.testing.assert_allclose(CrossEncoder(folder).predict(pairs), expected, **CLOSE)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("classifier_pooling", "max", "unknown classifier_pooling 'max'; known: 'cls', 'mean'"),
        ("classifier_activation", "mish", "unknown classifier_activation 'mish'; known"),
        ("classifier_bias", "yes", "classifier_bias must be true or false, got 'yes'"),
        ("classifier_bias", True, "tensor 'head.dense.bias' is missing"),
        ("norm_eps", -1.0, "norm_eps must be a finite number above 0, got -1"),
    ],
    ids=str,
)
def test_an_invalid_head_is_refused_by_field(tmp_path, field, value, match):
    head = modernbert_head(np.random.default_rng(3))
    config = {field: value}
    folder = write(tmp_path, MODERNBERT, "ModernBertForSequenceClassification", head, **config)
    with pytest.raises(ValueError, match=match):
        CrossEncoder(folder)


@pytest.mark.parametrize(
    "name", ["head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"]
)
def test_a_tensor_that_modernberts_head_lacks_is_named(tmp_path, name):
    head = modernbert_head(np.random.default_rng(3))
    del head[name]
    folder = write(tmp_path, MODERNBERT, "ModernBertForSequenceClassification", head)
    with pytest.raises(ValueError, match=f"tensor '{name}' is missing from the checkpoint"):
        CrossEncoder(folder)

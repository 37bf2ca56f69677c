"""Known properties of all-MiniLM-L6-v2, measured in float64 with another implementation, and the examples in
docstrings, which use this model."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from simdformer import SentenceTransformer, explain
from simdformer.explain import (
    attention_patterns,
    faithfulness,
    head_importance,
    leave_one_out,
    token_similarity,
)

S1 = "The cat sat on the mat because it was tired."
S2 = "A tired kitten lay down on the rug."


@pytest.fixture(scope="module")
def minilm():
    return SentenceTransformer("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def output(minilm):
    return minilm.outputs(S1, output_attentions=True)


def test_head_0_2_attends_to_the_previous_token(output):
    previous = attention_patterns(output.attentions)["previous"]
    np.testing.assert_allclose(previous[0, 2], 0.9997, rtol=0, atol=5e-5)
    assert previous.argmax() == 2


def test_head_1_8_attends_to_the_next_token(output):
    following = attention_patterns(output.attentions)["next"]
    assert np.unravel_index(following.argmax(), following.shape) == (1, 8)


def test_it_attends_to_the_cat(output):
    it, cat = output.tokens.index("it"), output.tokens.index("cat")
    weights = np.array(output.attentions)[:, :, it, cat]
    np.testing.assert_allclose(weights[5, 11], 0.712, rtol=0, atol=5e-4)
    assert weights.argmax() == 71


def test_head_5_11_is_the_most_important(minilm):
    importance = head_importance(minilm, S1)
    assert importance.shape == (6, 12)
    assert importance.argmax() == 71
    np.testing.assert_allclose(importance[5, 11], 0.1445, rtol=0, atol=5e-5)
    np.testing.assert_allclose(np.median(importance), 0.0015, rtol=0, atol=5e-5)


def test_pairs_of_similar_words_contribute_most(minilm, output):
    pairs = token_similarity(minilm, S1, S2)
    np.testing.assert_allclose(pairs.sum(), 0.6764, rtol=0, atol=5e-5)
    other = minilm.outputs(S2).tokens
    content = pairs[1:-1, 1:-1].copy()
    best = []
    for _ in range(3):
        i, j = np.unravel_index(content.argmax(), content.shape)
        best.append((output.tokens[i + 1], other[j + 1]))
        content[i, j] = -1
    assert sorted(best) == [("cat", "kitten"), ("mat", "rug"), ("tired", "tired")]


def test_cat_contributes_most_to_the_similarity(minilm, output):
    losses = dict(zip(output.tokens, leave_one_out(minilm, S1, S2), strict=True))
    expected = {"cat": 0.308, "sat": 0.114, "tired": 0.112, "was": -0.023}
    for token, loss in expected.items():
        np.testing.assert_allclose(losses[token], loss, rtol=0, atol=5e-4)


def test_rollout_agrees_less_than_the_last_layers_attention_and_the_norms(minilm, output):
    attributions = {
        "rollout": explain.attention_rollout(output.attentions).mean(axis=0),
        "last layer": output.attentions[-1].mean(axis=(0, 1)),
        "norm": np.linalg.norm(output.last_hidden_state, axis=1),
    }
    found = {name: faithfulness(minilm, S1, a).spearman for name, a in attributions.items()}
    assert found["rollout"] < 0.2
    assert 0.6 < found["last layer"] < found["norm"] < 0.9


@pytest.mark.parametrize(
    "module", ["measures", "cost", "heads", "attribution", "faithfulness", "explanation"]
)
def test_examples_in_docstrings(module):
    tested = doctest.testmod(importlib.import_module(f"simdformer.explain.{module}"))
    assert tested.attempted > 0
    assert tested.failed == 0

"""faithfulness: rank correlation, erasure and their baselines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from simdformer.explain import faithfulness, leave_one_out

TEXT, OTHER = "the quick brown fox", "a lazy dog"


def length(model, text=TEXT):
    return len(model.outputs(text).tokens)


@pytest.mark.parametrize("other", [None, OTHER])
def test_leave_one_out_agrees_with_itself(model, other):
    losses = leave_one_out(model, TEXT, other)
    found = faithfulness(model, TEXT, losses, other)
    assert found.num_tokens == length(model) - 2
    np.testing.assert_allclose([found.spearman, *found.interval], 1, rtol=1e-12)
    np.testing.assert_allclose(faithfulness(model, TEXT, -losses, other).spearman, -1, rtol=1e-12)


def test_equal_numbers_share_a_rank(model):
    losses = leave_one_out(model, TEXT)
    rounded = np.round(losses, 3)
    content = slice(1, -1)

    def ranks(values):
        return [np.mean(np.flatnonzero(np.sort(values) == v)) for v in values]

    expected = np.corrcoef(ranks(rounded[content]), ranks(losses[content]))[0, 1]
    assert len(set(rounded[content])) < len(rounded[content])
    found = faithfulness(model, TEXT, rounded).spearman
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_special_tokens_do_not_count(model):
    losses = leave_one_out(model, TEXT)
    changed = losses.copy()
    changed[[0, -1]] = 1e6, -1e6
    assert faithfulness(model, TEXT, changed) == faithfulness(model, TEXT, losses)


def test_erasure_removes_and_keeps_the_highest(model):
    """Of four tokens, one, one, one, one and two are removed, or are the only ones kept."""
    text = "a b c d"
    found = faithfulness(model, text, [0, 1, 4, 3, 2, 0])
    full = model.encode(text).astype(float)

    def loss(shorter):
        e = model.encode(shorter).astype(float)
        return 1 - e @ full / np.linalg.norm(e) / np.linalg.norm(full)

    comprehensiveness = (4 * loss("a c d") + loss("a d")) / 5
    sufficiency = (4 * loss("b") + loss("b c")) / 5
    np.testing.assert_allclose(found.comprehensiveness, comprehensiveness, atol=1e-6)
    np.testing.assert_allclose(found.sufficiency, sufficiency, atol=1e-6)


def test_a_faithful_order_is_outside_the_interval_of_random_ones(model):
    found = faithfulness(model, TEXT, leave_one_out(model, TEXT))
    assert found.random_interval[0] < 0 < found.random_interval[1] < 0.9
    assert found.comprehensiveness > found.random_comprehensiveness
    assert found.interval[0] > found.random_interval[1]


def test_more_tokens_make_random_orders_agree_less(model):
    widths = []
    for count in (4, 16, 64):
        text = " ".join("abcdefgh"[i % 8] for i in range(count))
        found = faithfulness(model, text, np.arange(count + 2))
        widths.append(found.random_interval[1] - found.random_interval[0])
    assert all(a > 1.5 * b for a, b in pairwise(widths))


def test_a_seed_makes_the_figures_reproducible(model):
    attribution = np.arange(length(model))
    first, again, other = (faithfulness(model, TEXT, attribution, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.interval != other.interval


def test_a_constant_attribution_has_no_correlation(model):
    found = faithfulness(model, TEXT, np.zeros(length(model)))
    assert np.isnan([found.spearman, *found.interval]).all()
    assert np.isfinite(found.comprehensiveness)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("a b", 2)])
def test_too_few_tokens_have_no_correlation(model, text, tokens):
    found = faithfulness(model, text, np.arange(tokens + 2))
    assert found.num_tokens == tokens
    assert np.isnan([found.spearman, *found.interval, *found.random_interval]).all()
    assert np.isnan(found.sufficiency) == (tokens == 0)


@pytest.mark.parametrize(
    ("attribution", "message"),
    [
        ([1.0, 2.0], r"must have shape \(\d+,\), one number per token, got \(2,\)"),
        (np.full(18, np.nan), "not finite"),
    ],
)
def test_an_invalid_attribution_is_refused(model, attribution, message):
    assert length(model) == 18
    with pytest.raises(ValueError, match=message):
        faithfulness(model, TEXT, attribution)

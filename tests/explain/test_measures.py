"""Entropy, patterns and rollout of attention weights, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer.explain import attention_entropy, attention_patterns, attention_rollout

PATTERNS = ["previous", "next", "self", "first", "last", "same_token"]


def random_maps(rng, *shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def test_entropy_is_the_mean_over_queries(rng):
    maps = random_maps(rng, 2, 3, 5, 5)
    expected = -(maps.astype(float) * np.log(maps)).sum(-1).mean(-1)
    np.testing.assert_allclose(attention_entropy(maps), expected, rtol=1e-6)
    np.testing.assert_allclose(
        attention_entropy(maps, normalize=True), expected / np.log(5), rtol=1e-6
    )


def test_entropy_is_largest_for_a_uniform_head_and_zero_for_one_key():
    maps = np.stack([np.full((7, 7), 1 / 7), np.eye(7)])
    np.testing.assert_allclose(attention_entropy(maps, normalize=True), [1, 0], atol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_entropy_of_a_single_token_is_zero(normalize):
    assert attention_entropy(np.ones((2, 3, 1, 1)), normalize=normalize).tolist() == [[0] * 3] * 2


def test_entropy_of_a_head_that_is_switched_off_is_zero():
    assert attention_entropy(np.zeros((4, 4))) == 0


@pytest.mark.parametrize("name", PATTERNS)
def test_a_head_with_one_pattern_has_all_its_weight_in_it(name):
    ids = np.array([5, 6, 5, 6, 7])
    target = {
        "previous": [0, 0, 1, 2, 3],
        "next": [1, 2, 3, 4, 4],
        "self": [0, 1, 2, 3, 4],
        "first": [0] * 5,
        "last": [4] * 5,
        "same_token": [2, 3, 0, 1, 4],
    }
    found = attention_patterns(np.eye(5)[target[name]], ids)
    assert found[name] == 1
    assert all(found[other] < 0.6 for other in PATTERNS if other != name)


def test_patterns_keep_layers_and_heads_apart(rng):
    maps = random_maps(rng, 2, 3, 6, 6)
    found = attention_patterns(maps, np.arange(6) % 4)
    for layer, head in np.ndindex(2, 3):
        alone = attention_patterns(maps[layer, head], np.arange(6) % 4)
        for name in PATTERNS:
            np.testing.assert_allclose(found[name][layer, head], alone[name], rtol=1e-12)


def test_same_token_is_the_sum_over_all_other_occurrences(rng):
    weights = random_maps(rng, 5, 5)
    expected = np.mean(
        [
            weights[0, 2] + weights[0, 3],
            weights[2, 0] + weights[2, 3],
            weights[3, 0] + weights[3, 2],
        ]
    )
    found = attention_patterns(weights, [1, 2, 1, 1, 3])["same_token"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_patterns_that_no_query_can_have_are_nan():
    found = attention_patterns(np.ones((2, 1, 1)), [3])
    assert all(np.isnan(found[name]).all() for name in ("previous", "next", "same_token"))
    assert all((found[name] == 1).all() for name in ("self", "first", "last"))


def test_without_ids_there_is_no_same_token(rng):
    assert list(attention_patterns(random_maps(rng, 3, 3))) == PATTERNS[:-1]


def test_rollout_is_the_product_of_the_layers(rng):
    maps = random_maps(rng, 3, 2, 4, 4).astype(np.float64)
    first, second, third = (np.eye(4) + layer.mean(axis=0) for layer in maps)
    rollout = attention_rollout(maps)
    np.testing.assert_allclose(rollout, third @ second @ first / 8, rtol=1e-12)
    np.testing.assert_allclose(rollout.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("measure", [attention_entropy, attention_patterns, attention_rollout])
@pytest.mark.parametrize(
    ("attentions", "error", "message"),
    [
        ((np.ones((1, 2, 2)), None), TypeError, "some layers are None"),
        (np.ones((2, 2, 3)), ValueError, r"\(\.\.\., n, n\), got \(2, 2, 3\)"),
        (np.ones(4), ValueError, r"\(\.\.\., n, n\), got \(4,\)"),
        (np.ones((2, 2), int), TypeError, "floating point, got int64"),
        (
            (np.ones((1, 2, 2)), np.ones((2, 2, 2))),
            ValueError,
            "the same number of heads in every layer",
        ),
    ],
)
def test_invalid_maps_are_refused(measure, attentions, error, message):
    with pytest.raises(error, match=message):
        measure(attentions)


def test_ids_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"input_ids must have shape \(3,\), got \(2,\)"):
        attention_patterns(np.eye(3), [1, 2])


def test_rollout_of_a_single_layer_is_refused():
    with pytest.raises(ValueError, match=r"\(layers, heads, n, n\), got shape \(2, 2, 2\)"):
        attention_rollout(np.ones((2, 2, 2)))

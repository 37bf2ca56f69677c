"""A layer with a mixture of experts, compared with its definition."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from tests.oracle import nn as oracle_nn
from tests.support import assert_same_bits, normal

E, H, F = 24, 4, 37


def layer_of(rng, num_experts, top_k, *, activation="gelu", bias=True, **options):
    experts = nn.MixtureOfExperts(E, F, num_experts, top_k, activation, bias)
    layer = nn.TransformerEncoderLayer(E, H, batch_first=True, experts=experts, **options)
    w = {k: normal(rng, *v.shape, scale=0.4) for k, v in layer.state_dict().items()}
    layer.load_state_dict(w)
    return layer, w


def assert_close(actual, exact):
    assert np.abs(actual - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (4, 1), (5, 2), (8, 8)])
def test_each_token_uses_its_most_probable_experts(rng, num_experts, top_k):
    layer, w = layer_of(rng, num_experts, top_k)
    for length in (1, 7, 150):  # one row, fewer and more than a block of rows
        x = normal(rng, 1, length, E)
        assert_close(layer(x)[0], oracle_nn.layer(x[0], w, H, activation="gelu", top_k=top_k))


@pytest.mark.parametrize(
    "options",
    [
        {"norm_first": True},
        {"output_norm": True},
        {"norm": "rms", "norm_first": True},
        {"residual": False},
        {"alpha": 2.0},
    ],
)
def test_with_every_place_of_the_norms(rng, options):
    layer, w = layer_of(rng, 4, 2, activation="relu", bias=False, **options)
    x = normal(rng, 1, 9, E)
    given = {("kind" if name == "norm" else name): value for name, value in options.items()}
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, H, activation="relu", top_k=2, **given))


def test_a_token_depends_neither_on_the_batch_nor_on_threads(rng):
    layer, _ = layer_of(rng, 6, 2)
    x = normal(rng, 40, 11, E)
    whole = layer(x, num_threads=1)
    assert_same_bits(layer(x, num_threads=3), whole)
    for i in (0, 7, 39):
        assert_same_bits(layer(x[i : i + 1], num_threads=2), whole[i : i + 1])


def test_a_nan_affects_only_its_own_sequence(rng):
    layer, _ = layer_of(rng, 6, 2)
    x = normal(rng, 3, 5, E)
    expected = layer(x)
    x[1, 2, 3] = np.nan
    found = layer(x)
    assert np.isnan(found[1, 2]).all()
    assert_same_bits(found[[0, 2]], expected[[0, 2]])


def test_changing_an_expert_takes_effect(rng):
    layer, w = layer_of(rng, 2, 2)
    x = normal(rng, 1, 4, E)
    layer(x)
    w["experts.linear2.1.weight"] = -w["experts.linear2.1.weight"]
    layer.experts.linear2[1].weight = w["experts.linear2.1.weight"]
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, H, activation="gelu", top_k=2))


@pytest.mark.parametrize(("compute_type", "close"), [("bfloat16", 0.02), ("int8", 0.05)])
def test_experts_are_rounded_and_the_router_is_not(rng, compute_type, close):
    layer, w = layer_of(rng, 4, 4)
    x = normal(rng, 1, 30, E)
    exact = layer(x)
    layer.to_compute_type(compute_type)
    assert layer.experts.linear1[3].compute_type == compute_type
    assert_same_bits(layer.experts.router.weight, w["experts.router.weight"])
    assert 0 < np.abs(layer(x) - exact).max() < close * np.abs(exact).max()


def test_invalid_experts_are_refused():
    with pytest.raises(ValueError, match="top_k must be at most num_experts=2, got 3"):
        nn.MixtureOfExperts(E, F, 2, 3)
    with pytest.raises(ValueError, match="unknown activation 'swiglu'"):
        nn.MixtureOfExperts(E, F, 2, 1, "swiglu")
    with pytest.raises(ValueError, match="experts must have d_model=24, got 12"):
        nn.TransformerEncoderLayer(E, H, experts=nn.MixtureOfExperts(12, F, 2, 1))

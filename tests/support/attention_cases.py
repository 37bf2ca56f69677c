"""Common parts of the tests of simdformer.functional's attention: inputs, weights of each score, a bound."""

from __future__ import annotations

import numpy as np

from tests.oracle import scores as oracle
from tests.support import assert_within, normal

SCORES = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")


def qkv(rng, queries=9, keys=13, dim=8, lead=(2, 3), scale=1.0):
    return (
        normal(rng, *lead, queries, dim, scale=scale),
        normal(rng, *lead, keys, dim, scale=scale),
        normal(rng, *lead, keys, dim),
    )


def check(actual, expected, tolerance=3e-6):
    """Check with a tolerance relative to the largest expected element, because outputs are weighted means of
    values."""
    assert_within(actual, expected, tolerance * (1 + np.abs(expected).max(initial=0)))


def score_arguments(rng, score, dim=8, heads=3):
    if score == "bilinear":
        return {"weight": normal(rng, heads, dim, dim, scale=2 / dim)}
    if score == "additive":
        return {
            "weight": normal(rng, heads, 11),
            "query_weight": normal(rng, heads, 11, dim, scale=dim**-0.5),
            "key_weight": normal(rng, heads, 11, dim, scale=dim**-0.5),
            "bias": normal(rng, 11),
        }
    return {}


def oracle_scores(score, q, k, **kwargs):
    return getattr(oracle, score)(q, k, **kwargs)


def z(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)

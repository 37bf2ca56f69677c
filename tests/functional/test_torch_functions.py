"""Functions of torch: log_softmax, normalize, and the arguments of embedding."""

from __future__ import annotations

import numpy as np
import pytest

import simdformer.functional as F
from tests.support import EPS, assert_same_bits, assert_within, normal


@pytest.mark.parametrize("dim", [-1, 0, 1, -2])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_log_softmax_is_the_logarithm(rng, dim, scale):
    x = normal(rng, 5, 7, 33, scale=scale)
    wide = x.astype(np.float64)
    shifted = wide - wide.max(axis=dim, keepdims=True)
    exact = shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
    # Rounding of the difference and of the sum with the logarithm, which has an error of 2^-22.
    bound = EPS * (np.abs(shifted) + np.abs(exact)) + 2 * EPS
    assert_within(F.log_softmax(x, dim), exact, bound)


def test_log_softmax_of_infinities():
    x = np.array([[0, -np.inf, 0], [-np.inf, 3, -np.inf]], np.float32)
    expected = np.array([[np.log(0.5), -np.inf, np.log(0.5)], [-np.inf, 0, -np.inf]], np.float32)
    np.testing.assert_allclose(F.log_softmax(x), expected, rtol=1e-6)
    assert np.isnan(F.log_softmax(np.full((1, 3), -np.inf, np.float32))).all()


@pytest.mark.parametrize("p", [1, 2.0, 3, np.inf, np.float32(2)])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalize_gives_unit_norms(rng, p, dim, scale):
    x = normal(rng, 4, 6, 5, scale=scale)
    exact = x.astype(np.float64)
    exact = exact / np.maximum(np.linalg.norm(exact, ord=p, axis=dim, keepdims=True), 1e-12)
    assert_within(F.normalize(x, p=p, dim=dim), exact, EPS * np.abs(exact))


def test_normalize_leaves_zeros():
    assert not F.normalize(np.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("function", [F.log_softmax, F.normalize])
def test_results_are_written_to_out(rng, function):
    x = normal(rng, 3, 5)
    expected, out = function(x), np.empty((3, 5), np.float32)
    assert function(x, out=out) is out
    assert_same_bits(out, expected)
    assert_same_bits(function(x, out=x), expected)
    assert x is not expected
    with pytest.raises(ValueError, match=r"out must have shape \(3, 5\), got \(5,\)"):
        function(x, out=np.empty(5, np.float32))


@pytest.mark.parametrize("function", [F.log_softmax, F.normalize, F.softmax])
@pytest.mark.parametrize("dim", [2, -3])
def test_a_nonexistent_dim_is_refused(function, dim):
    with pytest.raises(ValueError, match=rf"dim {dim} is not one of shape \(3, 5\)"):
        function(np.zeros((3, 5), np.float32), dim=dim)


def test_an_embeddings_padding_row_is_looked_up_like_any_other(rng):
    table, ids = normal(rng, 5, 3), np.array([0, 4, 2])
    assert_same_bits(F.embedding(ids, table, padding_idx=-1), table[ids])
    assert_same_bits(F.embedding(ids, table, 0, None, 2.0, False, False), table[ids])
    with pytest.raises(ValueError, match="padding_idx must be within 5 embeddings, got 5"):
        F.embedding(ids, table, padding_idx=5)
    with pytest.raises(ValueError, match="max_norm must be None"):
        F.embedding(ids, table, max_norm=1.0)


X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 2, 4, 6)
NUMBERS = {
    "attention": (lambda t: F.attention(X, X, X, scale=t(0.5), softcap=t(2.0), dropout_p=t(0.0)), float),
    "window": (lambda t: F.attention(X, X, X, window_size=(t(1), t(-1))), int),
    "is_causal": (lambda t: F.attention(X, X, X, is_causal=t(1), return_weights=t(1))[1], bool),
    "no weights": (lambda t: F.attention(X, X, X, return_weights=t(0)), bool),
    "varlen": (lambda t: F.varlen_attention(X[0], X[0], X[0], [0, t(2)], [0, t(2)], t(2), t(2)), int),
    "layer_norm": (lambda t: F.layer_norm(X, t(6)), int),
    "rms_norm": (lambda t: F.rms_norm(X, (t(4), t(6))), int),
    "eps": (lambda t: F.layer_norm(X, 6, eps=t(0.5)), float),
    "softmax": (lambda t: F.softmax(X, t(1)), int),
    "glu": (lambda t: F.glu(X, t(2)), int),
    "normalize": (lambda t: F.normalize(X, t(2), t(1)), int),
    "rotary": (lambda t: F.rotary_embedding(X, rotary_dim=t(4), offset=t(3), interleaved=t(1)), int),
    "sinusoids": (lambda t: F.sinusoidal_position_encoding(t(5), t(6), offset=t(2)), int),
    "alibi": (lambda t: F.alibi_bias(t(6), t(3), t(4)), int),
    "t5": (lambda t: F.t5_bucket([1, 2, 99], num_buckets=t(16), max_distance=t(64)), int),
    "embedding": (lambda t: F.embedding([t(1)], X[0, 0], padding_idx=t(0)), int),
}  # fmt: skip
NUMPY = {
    float: [np.float32, np.float64, np.float16],
    int: [np.int64, np.int32, np.int8],
    bool: [bool, np.bool_, int, np.int64],
}


@pytest.mark.parametrize(
    ("name", "number"), [(n, t) for n, (_, kind) in NUMBERS.items() for t in NUMPY[kind]]
)
def test_numpy_scalars_are_numbers_and_truth_is_pythons(name, number):
    call, kind = NUMBERS[name]
    np.testing.assert_array_equal(call(number), call(kind))

"""Similarity and quantization of embeddings, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import quantize_embeddings
from simdformer.util.similarity import SIMILARITIES, normalize_embeddings

rng = np.random.default_rng(11)
A = rng.standard_normal((7, 33)).astype(np.float32)
B = rng.standard_normal((9, 33)).astype(np.float32)

# One pair of vectors in float64; larger means more similar.
DEFINITIONS = {
    "cosine": lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
    "dot": lambda a, b: a @ b,
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum()),
    "manhattan": lambda a, b: -np.abs(a - b).sum(),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_similarity_compares_all_with_all(name):
    wide_a, wide_b = A.astype(np.float64), B.astype(np.float64)
    expected = [[DEFINITIONS[name](a, b) for b in wide_b] for a in wide_a]
    scores = SIMILARITIES[name][0](A, B)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_pairwise_similarity_compares_row_with_row(name):
    expected = [
        DEFINITIONS[name](a, b)
        for a, b in zip(A.astype(np.float64), B[:7].astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(SIMILARITIES[name][1](A, B[:7]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_vector_is_a_matrix_of_one_row(name):
    matrix, pairwise = SIMILARITIES[name]
    assert matrix(A[0], B).shape == (1, 9)
    assert matrix(A[0], B[0]).shape == (1, 1)
    assert pairwise(A[0], B[0]).shape == ()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_lists_and_small_integers_are_accepted_as_embeddings(name):
    codes = rng.integers(-128, 128, (5, 40)).astype(np.int8)
    expected = SIMILARITIES[name][0](codes.astype(np.float32), codes.astype(np.float32))
    np.testing.assert_array_equal(SIMILARITIES[name][0](list(codes), codes), expected)


def test_float64_stays_float64():
    assert SIMILARITIES["dot"][0](A.astype(np.float64), B).dtype == np.float64


def test_a_zero_vector_has_similarity_zero_and_stays_zero():
    zero = np.zeros((1, 33), np.float32)
    assert (SIMILARITIES["cosine"][0](zero, B) == 0).all()
    assert (normalize_embeddings(zero) == 0).all()


def test_the_distance_of_close_vectors_is_accurate():
    a = np.full((1, 384), 100, np.float32)
    b = a + np.float32(2**-10)
    expected = -(2**-10) * np.sqrt(384)
    np.testing.assert_allclose(SIMILARITIES["euclidean"][0](a, b), expected, rtol=1e-4)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize(
    ("a", "b"), [(A, B[:, :5]), (A[None], B), (A.astype(complex), B), (np.float32(1), B)]
)
def test_embeddings_that_do_not_fit_are_refused(name, a, b):
    for function in SIMILARITIES[name]:
        with pytest.raises(ValueError, match="embeddings must be"):
            function(a, b)


def test_codes_are_equal_steps_between_the_extremes():
    # Steps of 1 and of 2 are exact, so that no rounding decides between two codes.
    embeddings = np.arange(256, dtype=np.float32)[:, None] * np.array([1, 2], np.float32)
    codes = quantize_embeddings(embeddings, "uint8")
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.arange(256)[:, None].repeat(2, axis=1))


def test_int8_is_uint8_less_128():
    embeddings = rng.standard_normal((200, 10)).astype(np.float32)
    signed = quantize_embeddings(embeddings, "int8")
    assert signed.dtype == np.int8
    unsigned = quantize_embeddings(embeddings, "uint8").astype(int)
    np.testing.assert_array_equal(signed, unsigned - 128)


def test_given_ranges_make_codes_independent_of_the_call():
    ranges = np.array([[0.0], [255.0]])
    embeddings = np.array([[-5.0], [0.0], [127.9], [255.0], [999.0]], np.float32)
    codes = quantize_embeddings(embeddings, "uint8", ranges=ranges)
    assert codes[:, 0].tolist() == [0, 0, 127, 255, 255]
    assert quantize_embeddings(embeddings[2], "uint8", ranges=ranges).tolist() == [127]


def test_calibration_embeddings_give_the_ranges():
    calibration = rng.standard_normal((150, 4)).astype(np.float32)
    ranges = np.stack((calibration.min(axis=0), calibration.max(axis=0)))
    np.testing.assert_array_equal(
        quantize_embeddings(A[:, :4], "int8", calibration_embeddings=calibration),
        quantize_embeddings(A[:, :4], "int8", ranges=ranges),
    )


def test_ranges_of_few_embeddings_cause_a_warning():
    with pytest.warns(UserWarning, match="int8 ranges are computed from 7 embeddings"):
        quantize_embeddings(A, "int8")


def test_a_dimension_without_a_range_is_not_divided_by():
    embeddings = np.full((100, 2), 0.5, np.float32)
    assert (quantize_embeddings(embeddings, "uint8") == 0).all()


def test_bits_are_the_signs():
    embeddings = np.array([[1, -1, 0, 2, -2, 3, -3, 4, 5]], np.float32)
    bits = quantize_embeddings(embeddings, "ubinary")
    assert bits.tolist() == [[0b10010101, 0b10000000]]
    assert quantize_embeddings(embeddings, "binary").tolist() == [[0b10010101 - 128, 0]]


def test_float32_is_not_changed():
    np.testing.assert_array_equal(quantize_embeddings(A, "float32"), A)


@pytest.mark.parametrize(
    ("embeddings", "precision", "match"),
    [
        (A, "int4", "unknown precision 'int4'; known: float32, int8"),
        (A.astype(np.int8), "int8", "embeddings must be floating point, got int8"),
        (A[0], "uint8", "needs the range of each dimension"),
        (A[:1], "int8", "needs the range of each dimension"),
    ],
)
def test_invalid_embeddings_are_refused(embeddings, precision, match):
    with pytest.raises(ValueError, match=match):
        quantize_embeddings(embeddings, precision)

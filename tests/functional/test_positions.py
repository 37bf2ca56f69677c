"""Sinusoids, rotary embeddings and relative positions of simdformer.functional."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import simdformer.functional as F
from simdformer.functional.relative import deberta_bucket
from tests.oracle import positions as oracle
from tests.oracle import scores as oracle_scores
from tests.support import TESTS, assert_same_bits, assert_within, normal

HALF_ULP = 2.0**-25 + 1e-9  # for numbers in [0.5, 1], plus the error of float64
FORMS = [(freq, layout) for freq in ("paper", "t2t") for layout in ("interleaved", "concat")]


# Sinusoids


@pytest.mark.parametrize(("freq", "layout"), FORMS)
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 20, 64, 385])
def test_sinusoids_are_correctly_rounded(freq, layout, dim):
    positions = np.concatenate([np.arange(70), [1000, 12345, 10**6]])
    expected = oracle.sinusoidal(positions, dim, freq=freq, layout=layout)
    actual = F.sinusoidal_position_encoding(positions, dim, freq=freq, layout=layout)
    # Near 1e6, an angle in float64 has an error of 1e-10.
    assert_within(actual, expected, HALF_ULP + 1e-9)


def test_number_means_the_first_positions():
    table = F.sinusoidal_position_encoding(100, 16)
    assert_same_bits(table, F.sinusoidal_position_encoding(np.arange(100), 16))


def test_fractional_and_negative_positions():
    positions = np.array([[-3.0, -0.5, 0.25], [1e-3, 7.75, -1e4]])
    actual = F.sinusoidal_position_encoding(positions, 12)
    assert_within(actual, oracle.sinusoidal(positions, 12), HALF_ULP)


def test_offset_and_scale():
    actual = F.sinusoidal_position_encoding(9, 6, offset=2, scale=0.5)
    assert_within(actual, 0.5 * oracle.sinusoidal(np.arange(9) + 2, 6), HALF_ULP)


def test_pad_index_is_a_zero_row():
    table = F.sinusoidal_position_encoding(np.array([0, 1, 2]), 6, pad_index=1)
    assert not table[1].any()
    assert table[[0, 2]].any(axis=1).all()


def test_sinusoids_into_out():
    out = np.empty((7, 20), np.float32)[:, ::2]
    assert F.sinusoidal_position_encoding(7, 10, out=out) is out
    np.testing.assert_array_equal(out, F.sinusoidal_position_encoding(7, 10))


# The article's five requirements


def test_encoding_is_unique():
    table = F.sinusoidal_position_encoding(5000, 64)
    assert len(np.unique(table, axis=0)) == 5000


def test_encoding_is_bounded_and_of_constant_norm():
    table = F.sinusoidal_position_encoding(5000, 64)
    assert np.abs(table).max() <= 1
    assert_within((table.astype(np.float64) ** 2).sum(axis=1), np.full(5000, 32.0), 2e-6)


def test_encoding_of_a_position_does_not_depend_on_the_others(rng):
    table = F.sinusoidal_position_encoding(3000, 64)
    assert_same_bits(F.sinusoidal_position_encoding(17, 64), table[:17])
    some = rng.permutation(3000)[:50]
    assert_same_bits(F.sinusoidal_position_encoding(some, 64), table[some])


def test_products_depend_only_on_the_distance():
    table = F.sinusoidal_position_encoding(600, 64).astype(np.float64)
    for k in (1, 17, 300):
        products = (table[:-k] * table[k:]).sum(axis=1)
        assert np.ptp(products) < 1e-5


@pytest.mark.parametrize(("freq", "layout"), FORMS)
@pytest.mark.parametrize("k", [0, 1, -3, 64, 1000, 0.5])
def test_a_matrix_shifts_every_position_by_k(freq, layout, k):
    matrix = F.relative_position_matrix(k, 384, freq=freq, layout=layout)
    positions = np.arange(500)
    exact = oracle.sinusoidal(positions, 384, freq=freq, layout=layout)
    shifted = oracle.sinusoidal(positions + k, 384, freq=freq, layout=layout)
    assert_within(exact @ matrix.T, shifted, 1e-11)
    table = F.sinusoidal_position_encoding(positions, 384, freq=freq, layout=layout)
    assert_within(table @ matrix.T, shifted, 2e-7)


def test_shift_matrices_are_rotations_that_compose():
    m3, m4, m7 = (F.relative_position_matrix(k, 32) for k in (3, 4, 7))
    assert_within(m3 @ m3.T, np.eye(32), 1e-14)
    assert_within(m3 @ m4, m7, 1e-14)


def test_odd_dim_has_no_shift_matrix():
    with pytest.raises(ValueError, match="dim must be even, got 5"):
        F.relative_position_matrix(1, 5)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"dim": 0}, ValueError),
        ({"freq": "vaswani"}, ValueError),
        ({"layout": "stacked"}, ValueError),
        ({"base": -1.0}, ValueError),
        ({"positions": 2.5}, ValueError),
        ({"positions": np.array(["a"])}, TypeError),
    ],
)
def test_sinusoids_refuse_invalid_arguments(kwargs, error):
    name = next(iter(kwargs))
    with pytest.raises(error, match=name):
        F.sinusoidal_position_encoding(**{"positions": 3, "dim": 4, **kwargs})


# Rotary embeddings


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("dim", "rotary_dim"), [(2, 2), (8, 8), (20, 20), (34, 34), (80, 32), (7, 4)]
)
def test_rotary_turns_pairs(rng, interleaved, dim, rotary_dim):
    x = normal(rng, 2, 3, 11, dim)
    actual = F.rotary_embedding(x, interleaved=interleaved, rotary_dim=rotary_dim)
    inv_freq = oracle.rotary_inv_freq(rotary_dim)
    expected = oracle.rotary(x, np.arange(11), inv_freq, interleaved)
    assert_within(actual, expected, 5e-7 * (1 + np.abs(expected).max()))


def test_rotary_takes_positions_of_each_sequence(rng):
    x, positions = normal(rng, 2, 3, 5, 8), np.array([[4, 0, 9, 1, 1], [100, 3, 2, 1, 0]])
    actual = F.rotary_embedding(x, positions, base=500.0)
    expected = oracle.rotary(x, positions[:, None], oracle.rotary_inv_freq(8, 500.0))
    assert_within(actual, expected, 3e-6)


def test_rotary_keeps_the_angle_of_far_positions(rng):
    x = normal(rng, 4, 16)
    positions = np.array([10**5, 10**6, 10**6 + 1, 3])
    expected = oracle.rotary(x, positions, oracle.rotary_inv_freq(16))
    assert_within(F.rotary_embedding(x, positions), expected, 3e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_of_rotated_vectors_depend_only_on_their_distance(rng, interleaved):
    q, k = normal(rng, 1, 64), normal(rng, 1, 64)

    def score(i, j):
        turned = [
            F.rotary_embedding(x, np.array([p]), interleaved=interleaved).astype(np.float64)
            for x, p in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    for distance in (0, 3, 50):
        scores = [score(i, i + distance) for i in (0, 7, 1000)]
        assert np.ptp(scores) < 2e-5


def test_rotary_in_place(rng):
    x = normal(rng, 2, 3, 5, 8)
    expected = F.rotary_embedding(x)
    F.rotary_embedding(x, out=x)
    assert_same_bits(x, expected)


def test_linear_scaling_stretches_positions(rng):
    x = normal(rng, 9, 8)
    scaled = F.rotary_embedding(x, scaling={"rope_type": "linear", "factor": 4.0})
    assert_within(scaled, F.rotary_embedding(x, np.arange(9) / 4), 1e-6)


def test_dynamic_scaling_starts_after_the_trained_length():
    scaling = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}
    plain, _ = F.rotary_frequencies(16)
    within, _ = F.rotary_frequencies(16, scaling=scaling, seq_len=64)
    beyond, _ = F.rotary_frequencies(16, scaling=scaling, seq_len=128)
    np.testing.assert_array_equal(within, plain)
    np.testing.assert_allclose(beyond, oracle.rotary_inv_freq(16, 10000 * 3 ** (16 / 14)))


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 2048}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("scaling", [YARN, LLAMA3])
def test_scaling_keeps_fast_pairs_and_divides_slow_ones(scaling):
    plain, _ = F.rotary_frequencies(128, base=5e5)
    scaled, factor = F.rotary_frequencies(128, base=5e5, scaling=scaling)
    ratio = plain / scaled
    assert ratio[0] == pytest.approx(1)
    assert ratio[-1] == pytest.approx(8)
    assert (np.diff(ratio) >= -1e-12).all()
    assert factor == pytest.approx(0.1 * math.log(8) + 1 if scaling is YARN else 1.0)


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"rope_type": "longest"}, "unknown rope_type 'longest'; known: default"),
        ({"rope_type": "linear"}, "lacks factor"),
        ({"rope_type": "linear", "factor": 0.5}, "factor must be >= 1"),
        ({**LLAMA3, "beta_fast": 3}, "unknown beta_fast"),
    ],
)
def test_invalid_scaling_is_refused(scaling, words):
    with pytest.raises(ValueError, match=words):
        F.rotary_frequencies(8, scaling=scaling)


@pytest.mark.parametrize("rotary_dim", [3, 10, -2])
def test_rotary_dim_must_fit(rng, rotary_dim):
    with pytest.raises(ValueError, match="rotary_dim"):
        F.rotary_embedding(normal(rng, 4, 8), rotary_dim=rotary_dim)


# Biases by distance


def test_t5_buckets_are_those_of_the_formula():
    relative = np.arange(-400, 401)
    for bidirectional in (True, False):
        for buckets, reach in ((32, 128), (8, 20), (64, 1000)):
            options = {
                "bidirectional": bidirectional,
                "num_buckets": buckets,
                "max_distance": reach,
            }
            expected = [oracle.t5_bucket(int(r), **options) for r in relative]
            np.testing.assert_array_equal(F.t5_bucket(relative, **options), expected)


@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (1, 7), (4, 0)])
def test_t5_bias_is_the_table_at_each_distance(rng, queries, keys):
    table = normal(rng, 32, 3)
    bias = F.t5_relative_bias(table, queries, keys, offset=2)
    matrix = F.relative_bias_matrix(bias, queries, keys)
    assert matrix.shape == (3, queries, keys)
    for i in range(queries):
        for j in range(keys):
            np.testing.assert_array_equal(matrix[:, i, j], table[oracle.t5_bucket(j - i - 2)])


def test_relative_bias_equals_the_matrix_as_mask(rng):
    q, k, v = normal(rng, 3, 9, 8), normal(rng, 3, 13, 8), normal(rng, 3, 13, 8)
    bias = F.t5_relative_bias(normal(rng, 32, 3), 9, 13)
    by_matrix = F.attention(q, k, v, attn_mask=F.relative_bias_matrix(bias, 9, 13))
    assert_same_bits(F.attention(q, k, v, relative_bias=bias), by_matrix)


def test_alibi_bias_falls_with_the_distance_from_the_last_key():
    matrix = F.relative_bias_matrix(F.alibi_bias(4, 3, 5), 3, 5)
    i, j = np.arange(3)[:, None], np.arange(5)[None]
    expected = -F.alibi_slopes(4)[:, None, None] * abs(i + 2 - j)
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)


# Positions by content


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (40, 13), (1, 50)])
def test_shaw_attention(rng, per_head, with_values, queries, keys):
    q, k, v = normal(rng, 2, 3, queries, 8), normal(rng, 2, 3, keys, 8), normal(rng, 2, 3, keys, 6)
    heads = (3,) if per_head else ()
    rk = normal(rng, *heads, 9, 8)
    rv = normal(rng, 9, 6) if with_values else None
    keep = rng.random((queries, keys)) < 0.8
    out, weights = F.shaw_attention(q, k, v, rk, rv, attn_mask=keep, return_weights=True)
    expected, expected_weights = oracle_scores.shaw_attention(q, k, v, rk, rv, keep=keep)
    assert_within(out, expected, 2e-5)
    assert_within(weights, expected_weights, 1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (4, 10)])
def test_transformer_xl_attention_with_memory(rng, queries, keys):
    q, k, v = normal(rng, 2, 3, queries, 8), normal(rng, 2, 3, keys, 8), normal(rng, 2, 3, keys, 8)
    u, w, r = normal(rng, 3, 8), normal(rng, 3, 8), normal(rng, 3, 2 * keys - 1, 8)
    scores = oracle_scores.transformer_xl(q, k, u, w, r) / math.sqrt(8)
    keep = oracle_scores.causal(queries, keys, lower_right=True)
    out = F.transformer_xl_attention(q, k, v, u, w, r, is_causal=True, alignment="lower_right")
    assert_within(out, oracle_scores.attend(scores, v, keep)[0], 2e-5)


def test_debertas_buckets_end_where_float32_rounds_them():
    """As transformers' make_log_bucket_position, also where an exact logarithm would give another bucket."""
    found = deberta_bucket(np.array([-1643, -256, 0, 257, 1642, 1643, 1644]), 512, 4096)
    np.testing.assert_array_equal(found, [-427, -256, 0, 257, 427, 427, 428])


@pytest.mark.parametrize("terms", [(True, False), (False, True), (True, True), (False, False)])
def test_disentangled_attention(rng, terms):
    q, k, v = (normal(rng, 2, 3, 20, 8) for _ in range(3))
    pk, pq = (normal(rng, 3, 12, 8) if wanted else None for wanted in terms)
    index = np.clip(np.arange(20)[:, None] - np.arange(20)[None] + 6, 0, 11)
    scores = oracle_scores.disentangled(q, k, pk, pq, index, index)
    scores = scores / math.sqrt(8 * (1 + sum(terms)))
    out = F.deberta_attention(q, k, v, pk, pq)
    assert_within(out, oracle_scores.attend(scores, v)[0], 2e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: F.shaw_attention(x, x, x, np.zeros((4, 8), np.float32)), "2 r"),
        (lambda x: F.shaw_attention(x, x, x, np.zeros((5, 7), np.float32)), "relative_keys"),
        (lambda x: F.shaw_attention(x[0], x[0], x[0, 0], x), "value"),
        (
            lambda x: F.transformer_xl_attention(
                x, x, x, x[0, :, 0], x[0, :, 0], np.zeros((4, 8), np.float32)
            ),
            "relative_keys must have 9 rows",
        ),
    ],
)
def test_relative_attention_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.zeros((2, 3, 5, 8), np.float32))


# Numbers from the tests of other projects; tests/data/score_literals.json names the sources.


LITERALS = json.loads((TESTS / "data" / "score_literals.json").read_text())["cases"]


def scores_of(case):
    """Scores without softmax, as given in these tests."""
    q, k = (np.array(case[name], np.float32) for name in ("query", "key"))
    options = {n: np.array(x, np.float32) for n, x in case.get("options", {}).items()}
    _, scores = F.attention(q, k, k, score=case["score"], return_weights="scores", **options)
    return scores


@pytest.mark.parametrize("case", LITERALS["scores"], ids=lambda case: case["name"])
def test_scores_equal_the_literals(case):
    np.testing.assert_allclose(scores_of(case), case["expected"], atol=case["atol"])


@pytest.mark.parametrize("case", LITERALS["attention"], ids=lambda case: case["name"])
def test_attention_equals_the_literals(case):
    q, k, v = (np.array(case[name], np.float32) for name in ("query", "key", "value"))
    mask = np.array(case["mask"]) if "mask" in case else None
    out, weights = F.attention(q, k, v, score=case["score"], attn_mask=mask, return_weights=True)
    np.testing.assert_allclose(out, case["output"], atol=case["atol"])
    np.testing.assert_allclose(weights, case["weights"], atol=case["atol"])


@pytest.mark.parametrize("case", LITERALS["sinusoidal"], ids=lambda case: case["name"])
def test_sinusoids_equal_the_literals(case):
    table = F.sinusoidal_position_encoding(np.array(case["positions"]), case["dim"])
    np.testing.assert_allclose(table, case["expected"], atol=case["atol"])


@pytest.mark.parametrize("case", LITERALS["alibi"], ids=lambda case: case["name"])
def test_alibi_equals_the_literals(case):
    bias = F.alibi_bias(case["heads"], 1, 3, max_bias=case["max_bias"])
    np.testing.assert_allclose(bias, case["expected"], rtol=1e-6, atol=1e-8)


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": 16,
    "factor": 4.0,
}


@pytest.mark.parametrize(("length", "name"), [(16, "short_factor"), (17, "long_factor")])
def test_longrope_divides_each_frequency_by_its_own_factor(length, name):
    plain = F.rotary_frequencies(8)[0]
    inv_freq, factor = F.rotary_frequencies(8, scaling=LONGROPE, seq_len=length)
    np.testing.assert_allclose(inv_freq, plain / LONGROPE[name], rtol=1e-15)
    assert factor == pytest.approx(np.sqrt(1 + np.log(4) / np.log(16)))


def test_a_part_of_the_features_is_rotated(rng):
    x = normal(rng, 2, 9, 16)
    got = F.rotary_embedding(x, scaling={"partial_rotary_factor": 0.5})
    assert_same_bits(got, F.rotary_embedding(x, rotary_dim=8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"short_factor": [1.0]}, r"short_factor must hold 4 numbers, got \(1,\)"),
        ({"factor": None}, "lacks factor or attention_factor"),
        ({"partial_rotary_factor": 0.4}, "partial_rotary_factor must be in"),
        ({"partial_rotary_factor": 2.0}, "partial_rotary_factor must be in"),
    ],
)
def test_longrope_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        F.rotary_frequencies(8, scaling={**LONGROPE, **change}, seq_len=4)

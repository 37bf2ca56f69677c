"""simdformer.functional's attention at every level: masks, windows, heads, sizes, layouts, errors."""

from __future__ import annotations

import numpy as np
import pytest

import simdformer.functional as F
from tests.oracle import scores as oracle
from tests.support import assert_same_bits, normal
from tests.support.attention_cases import SCORES, check, oracle_scores, qkv, score_arguments, z

pytestmark = pytest.mark.usefixtures("active_isa")

SHAPES = [(1, 1), (1, 33), (7, 5), (33, 70), (70, 33), (130, 257)]


# Masks


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_output_and_weights_without_a_mask(rng, queries, keys):
    q, k, v = qkv(rng, queries, keys)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_causal_counts_from_the_first_query_and_key(rng, queries, keys):
    q, k, v = qkv(rng, queries, keys)
    keep = oracle.causal(queries, keys)
    out, weights = F.scaled_dot_product_attention(q, k, v, is_causal=True, return_weights=True)
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, keep)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
@pytest.mark.parametrize("sides", [(0, 0), (2, 1), (3, -1), (-1, 4), (40, 2), (0, 300)])
@pytest.mark.parametrize("lower_right", [False, True])
def test_window_lets_a_query_see_its_neighbours(rng, queries, keys, sides, lower_right):
    q, k, v = qkv(rng, queries, keys)
    keep = oracle.window(queries, keys, *sides, lower_right=lower_right)
    out, weights = F.attention(
        q,
        k,
        v,
        window_size=sides,
        alignment="lower_right" if lower_right else "upper_left",
        return_weights=True,
    )
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, keep)
    check(out, expected)
    check(weights, expected_weights)


MASK_SHAPES = [
    (9, 13),
    (13,),
    (1, 13),
    (9, 1),
    (3, 9, 13),
    (2, 1, 1, 13),
    (2, 3, 9, 13),
    (2, 1, 9, 1),
]


@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_bool_mask_of_any_rank(rng, shape):
    q, k, v = qkv(rng)
    mask = rng.random(shape) < 0.6
    expected, expected_weights = oracle.attend(oracle.scaled_dot(q, k), v, mask)
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    check(out, expected)
    check(weights, expected_weights)


@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_float_mask_of_any_rank_is_added(rng, shape):
    q, k, v = qkv(rng)
    mask = np.where(rng.random(shape) < 0.3, -np.inf, normal(rng, *shape)).astype(np.float32)
    scores = oracle.scaled_dot(q, k) + mask.astype(np.float64)
    expected, expected_weights = oracle.attend(scores, v)
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    check(out, expected)
    check(weights, expected_weights)


def test_mask_of_all_true_changes_no_bit(rng):
    q, k, v = qkv(rng, 40, 70)
    plain = F.scaled_dot_product_attention(q, k, v)
    for shape in [(70,), (40, 70)]:
        assert_same_bits(F.scaled_dot_product_attention(q, k, v, np.ones(shape, bool)), plain)


def test_weights_out_change_no_bit_of_the_output(rng):
    q, k, v = qkv(rng, 40, 70)
    out, _ = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert_same_bits(out, F.scaled_dot_product_attention(q, k, v))


def test_mask_that_is_causal_equals_is_causal(rng):
    q, k, v = qkv(rng, 40, 40)
    masked = F.scaled_dot_product_attention(q, k, v, oracle.causal(40, 40))
    check(F.scaled_dot_product_attention(q, k, v, is_causal=True), masked, 1e-6)


# Masked rows and keys


@pytest.mark.parametrize("kind", ["bool", "float", "key"])
def test_fully_masked_row_is_zero_in_output_and_weights(rng, kind):
    q, k, v = qkv(rng)
    mask = np.ones((9, 13), bool)
    mask[4] = False
    rows = [4]
    if kind == "float":
        mask = np.where(mask, 0, -np.inf).astype(np.float32)
    if kind == "key":
        mask, rows = np.zeros((1, 13), bool), list(range(9))
    out, weights = F.scaled_dot_product_attention(q, k, v, mask, return_weights=True)
    assert not out[..., rows, :].any()
    assert not weights[..., rows, :].any()
    check(
        out,
        oracle.attend(
            oracle.scaled_dot(q, k),
            v,
            np.isfinite(np.where(mask, 0, -np.inf)) if kind != "float" else np.isfinite(mask),
        )[0],
    )


def test_fully_masked_row_is_nan_if_asked(rng):
    q, k, v = qkv(rng)
    mask = np.ones((9, 13), bool)
    mask[4] = False
    out, weights = F.scaled_dot_product_attention(
        q, k, v, mask, masked_row="nan", return_weights=True
    )
    for result in (out, weights):
        assert np.isnan(result[..., 4, :]).all()
        assert not np.isnan(np.delete(result, 4, axis=-2)).any()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["bool", "float", "causal"])
def test_nan_at_a_masked_key_has_no_effect(rng, score, poison, kind):
    q, k, v = qkv(rng, 9, 13)
    arguments = score_arguments(rng, score)
    keep = np.arange(13) < 9
    if kind == "bool":
        arguments["attn_mask"] = keep
    elif kind == "float":
        arguments["attn_mask"] = np.where(keep, 0.5, -np.inf).astype(np.float32)
    else:
        arguments["is_causal"] = True
    clean = F.attention(q, k, v, score=score, **arguments)
    k[..., 9:, :] = poison
    v[..., 9:, :] = poison
    assert_same_bits(F.attention(q, k, v, score=score, **arguments), clean)


def test_no_keys_give_zeros(rng):
    q, k, v = qkv(rng, 9, 0)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert_same_bits(out, np.zeros((2, 3, 9, 8), np.float32))
    assert weights.shape == (2, 3, 9, 0)


def test_no_queries_give_an_empty_output(rng):
    assert F.scaled_dot_product_attention(*qkv(rng, 0, 9)).shape == (2, 3, 0, 8)


@pytest.mark.parametrize("lead", [(0,), (0, 3), (2, 0)])
def test_no_sequences_or_no_heads_give_an_empty_output(rng, lead):
    q, k, v = qkv(rng, lead=lead)
    out, weights = F.scaled_dot_product_attention(q, k, v, return_weights=True)
    assert out.shape == (*lead, 9, 8)
    assert weights.shape == (*lead, 9, 13)


def test_one_query_and_one_key(rng):
    q, k, v = qkv(rng, 1, 1)
    assert_same_bits(F.scaled_dot_product_attention(q, k, v), v)


# Sizes and layouts


@pytest.mark.parametrize("dim", [1, 3, 5, 20, 80, 256])
@pytest.mark.parametrize("score", SCORES)
def test_any_head_dim(rng, dim, score):
    q, k, v = qkv(rng, 17, 35, dim)
    arguments = score_arguments(rng, score, dim)
    expected, _ = oracle.attend(oracle_scores(score, q, k, **arguments), v)
    check(F.attention(q, k, v, score=score, **arguments), expected, 1e-5)


def test_value_dim_differs_from_head_dim(rng):
    q, k, _ = qkv(rng)
    v = normal(rng, 2, 3, 13, 37)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (2, 2, 1, 3)])
def test_any_leading_dimensions(rng, lead):
    q, k, v = qkv(rng, lead=lead)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


def test_leading_dimensions_broadcast(rng):
    q, k, v = normal(rng, 2, 1, 9, 8), normal(rng, 3, 13, 8), normal(rng, 1, 1, 13, 8)
    check(F.scaled_dot_product_attention(q, k, v), oracle.attend(oracle.scaled_dot(q, k), v)[0])


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_queries_share_key_heads(rng, kv_heads):
    q, _, _ = qkv(rng, lead=(2, 6))
    _, k, v = qkv(rng, lead=(2, kv_heads))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    scores = oracle.scaled_dot(q, oracle.repeat_heads(k, 6))
    check(out, oracle.attend(scores, oracle.repeat_heads(v, 6))[0])


@pytest.mark.parametrize("score", SCORES)
def test_heads_inside_rows_are_read_in_place(rng, score):
    # The layout after a projection: (batch, rows, heads, dim).
    q, k, v = qkv(rng, lead=(2, 3))
    arguments = score_arguments(rng, score)
    views = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v)]
    assert_same_bits(
        F.attention(*views, score=score, **arguments),
        F.attention(q, k, v, score=score, **arguments),
    )


def test_backward_and_column_major_views_are_copied(rng):
    q, k, v = qkv(rng)
    plain = F.scaled_dot_product_attention(q, k, v)
    views = [
        np.asfortranarray(q),
        k[..., ::-1, :].copy()[..., ::-1, :],
        v[..., ::-1].copy()[..., ::-1],
    ]
    assert_same_bits(F.scaled_dot_product_attention(*views), plain)


@pytest.mark.parametrize("layout", ["contiguous", "heads inside", "every other", "overlapping"])
def test_out_receives_the_result(rng, layout):
    q, k, v = qkv(rng)
    expected = F.scaled_dot_product_attention(q, k, v)
    out = {
        "contiguous": np.empty((2, 3, 9, 8), np.float32),
        "heads inside": np.empty((2, 9, 3, 8), np.float32).swapaxes(1, 2),
        "every other": np.empty((2, 3, 9, 16), np.float32)[..., ::2],
        "overlapping": q,
    }[layout]
    assert F.scaled_dot_product_attention(q, k, v, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_a_row_does_not_depend_on_other_rows(rng):
    q, k, v = qkv(rng, 37, 60, lead=(3, 2))
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_same_bits(F.scaled_dot_product_attention(q[1], k[1], v[1], is_causal=True), whole[1])
    assert_same_bits(
        F.scaled_dot_product_attention(q[..., :20, :], k, v, is_causal=True), whole[..., :20, :]
    )


def test_splitting_queries_of_few_heads_changes_no_bit(rng):
    # One head, large enough for several threads, which share its rows.
    q, k, v = qkv(rng, 300, 311, 32, lead=(1, 1))
    bias = normal(rng, 1, 610)
    for kwargs in [{}, {"is_causal": True}, {"relative_bias": bias, "window_size": (70, 9)}]:
        whole, weights = F.attention(q, k, v, return_weights=True, **kwargs)
        twice = [np.concatenate([x, x], axis=1) for x in (q, k, v)]
        if "relative_bias" in kwargs:
            kwargs["relative_bias"] = np.repeat(bias, 2, axis=0)
        out, both = F.attention(*twice, return_weights=True, **kwargs)
        for head in range(2):
            assert_same_bits(out[:, head], whole[:, 0])
            assert_same_bits(both[:, head], weights[:, 0])


# Errors


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"query": z(3, 8, dtype=np.float64)}, TypeError, "query must be float32, got float64"),
        ({"key": [[1.0] * 8] * 5}, TypeError, "key must be float32"),
        ({"value": "text"}, TypeError, "value"),
        ({"query": z(8)}, ValueError, "query must have at least 2 dimensions"),
        ({"key": z(5, 7)}, ValueError, "7"),
        ({"value": z(4, 8)}, ValueError, "value has 4"),
        ({"query": z(2, 3, 8), "key": z(3, 5, 8)}, ValueError, "leading dimensions"),
        ({"attn_mask": z(3, 4)}, ValueError, "attn_mask of shape"),
        ({"attn_mask": z(2, 3, 5, dtype=bool)}, ValueError, "attn_mask of shape"),
        ({"attn_mask": z(3, 5, dtype=np.int64)}, TypeError, "attn_mask must be bool or float32"),
        ({"dropout_p": 0.1}, ValueError, "dropout_p"),
        ({"softcap": -1.0}, ValueError, "softcap must be positive"),
        ({"window_size": (-2, 0)}, ValueError, "window_size"),
        ({"masked_row": "one"}, ValueError, "masked_row"),
        ({"return_weights": "all"}, ValueError, "return_weights"),
        ({"scale": np.ones(2, np.float32)}, ValueError, "scale"),
        ({"out": z(3, 7)}, ValueError, "out must have shape"),
        ({"out": z(3, 8, dtype=np.float64)}, TypeError, "out must be float32"),
        ({"score": "angular"}, ValueError, "unknown score 'angular'; known: scaled_dot"),
        ({"score": "bilinear"}, ValueError, "needs weight"),
        ({"score": "bilinear", "weight": z(8, 7)}, ValueError, "weight must have shape"),
        ({"score": "cosine", "weight": z(8)}, ValueError, "does not accept weight"),
        ({"score": "additive", "query_weight": z(4, 8)}, ValueError, "together"),
        ({"relative_bias": z(6)}, ValueError, r"relative_bias must have shape \(7,\)"),
        ({"alignment": "centre"}, ValueError, "alignment"),
    ],
)
def test_error_names_the_argument(kwargs, error, words):
    arguments = {"query": z(3, 8), "key": z(5, 8), "value": z(5, 8), **kwargs}
    with pytest.raises(error, match=words):
        F.attention(**arguments)


def test_causal_and_mask_exclude_each_other_as_in_torch(rng):
    with pytest.raises(ValueError, match="mutually exclusive"):
        F.scaled_dot_product_attention(*qkv(rng), np.ones((9, 13), bool), is_causal=True)


def test_read_only_out_is_refused(rng):
    out = z(2, 3, 9, 8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.scaled_dot_product_attention(*qkv(rng), out=out)


class Exporter:
    """A foreign array that supports only DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_arrays_are_accepted(rng):
    q, k, v = qkv(rng)
    out = F.scaled_dot_product_attention(*map(Exporter, (q, k, v)))
    assert_same_bits(out, F.scaled_dot_product_attention(q, k, v))

"""Joined matrices with the same inputs give the bits of separate matrices."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests.support import assert_same_bits

_HIDDEN, _HEADS = 48, 4


def normal(rng, *shape):
    return rng.normal(0, 0.2, shape).astype(np.float32)


def int8(weight, bias):
    values, scale = _core.quantize_weight(weight)
    return _core.Linear.from_int8(values, scale, bias)


_MAKERS = {"float32": _core.Linear, "bfloat16": _core.Linear.in_bfloat16, "int8": int8}


def run(attention, feed_forward, x, cu_seqlens, num_threads):
    layer = _core.TransformerLayer(attention, None, feed_forward, None, None, None)
    out = np.empty_like(x)
    _core.TransformerStack([layer]).forward(x, cu_seqlens, out, num_threads=num_threads)
    return out


def attention(projections, output):
    return _core.MultiheadAttention(
        projections, output, num_heads=_HEADS, num_kv_heads=_HEADS, softmax_scale=0.3
    )


def rows_of(order, matrix):
    """The rows in this order; -1 is a row of zeros."""
    order = np.array(order)
    return np.where(order[:, None] < 0, np.float32(0), matrix[order])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("compute_type", _MAKERS)
# Below, at and above the size of a panel and of a chunk of 768 columns.
@pytest.mark.parametrize("inner", [1, 37, 768, 800, 1600])
def test_gate_and_up_in_one_matrix_have_the_bits_of_two(
    active_isa,  # noqa: ARG001
    inner,
    compute_type,
    num_threads,
):
    rng, linear = np.random.default_rng(inner), _MAKERS[compute_type]
    gate, up = normal(rng, inner, _HIDDEN), normal(rng, inner, _HIDDEN)
    biases = normal(rng, 2, inner)
    down = linear(normal(rng, _HIDDEN, inner), None)
    order = _core.gated_rows(inner)
    both = linear(
        rows_of(order, np.concatenate([gate, up])),
        rows_of(order, biases.reshape(-1, 1)).reshape(-1),
    )
    joined = _core.FeedForward.joined(both, down, activation="silu")
    apart = _core.FeedForward(
        linear(up, biases[1]), down, activation="silu", gate=linear(gate, biases[0])
    )
    qkv = _core.Linear(normal(rng, 3 * _HIDDEN, _HIDDEN))
    attends = attention([[qkv]], _core.Linear(normal(rng, _HIDDEN, _HIDDEN)))
    # A single text with few rows, and a batch with many.
    for lengths in ([5], [90, 100, 77]):
        x = normal(rng, sum(lengths), _HIDDEN)
        cu_seqlens = np.cumsum([0, *lengths])
        expected = run(attends, apart, x, cu_seqlens, num_threads)
        assert_same_bits(run(attends, joined, x, cu_seqlens, num_threads), expected)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("compute_type", _MAKERS)
def test_queries_keys_and_values_in_one_matrix_have_the_bits_of_three(
    active_isa,  # noqa: ARG001
    compute_type,
    num_threads,
):
    rng, linear = np.random.default_rng(3), _MAKERS[compute_type]
    weights, biases = normal(rng, 3, _HIDDEN, _HIDDEN), normal(rng, 3, _HIDDEN)
    output = linear(normal(rng, _HIDDEN, _HIDDEN), None)
    one = linear(weights.reshape(-1, _HIDDEN), biases.reshape(-1))
    three = [linear(w, b) for w, b in zip(weights, biases, strict=True)]
    feed_forward = _core.FeedForward(
        _core.Linear(normal(rng, 64, _HIDDEN)),
        _core.Linear(normal(rng, _HIDDEN, 64)),
        activation="gelu",
    )
    for lengths in ([5], [90, 100, 77]):
        x = normal(rng, sum(lengths), _HIDDEN)
        cu_seqlens = np.cumsum([0, *lengths])
        expected = run(attention([three], output), feed_forward, x, cu_seqlens, num_threads)
        joined = run(attention([[one]], output), feed_forward, x, cu_seqlens, num_threads)
        assert_same_bits(joined, expected)


def test_gated_rows_hold_every_row_once(active_isa):  # noqa: ARG001
    order = np.array(_core.gated_rows(1000))
    np.testing.assert_array_equal(np.sort(order[order >= 0]), np.arange(2000))

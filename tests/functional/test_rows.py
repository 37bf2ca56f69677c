"""Norms, activations, softmax, linear and embedding of simdformer.functional at every level."""

from __future__ import annotations

import numpy as np
import pytest

import simdformer.functional as F
from tests import oracle
from tests.support import LAYOUTS, assert_same_bits, assert_within, column_major, normal

pytestmark = pytest.mark.usefixtures("active_isa")

SHAPES = [(1,), (5,), (3, 7), (2, 3, 16), (0, 4), (2, 2, 3, 33), (300, 129)]


def check(actual, expected, tolerance=2e-6):
    assert_within(actual, expected, tolerance * (1 + np.abs(expected)))


# Norms


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_of_the_last_dimension(rng, shape):
    x, weight, bias = normal(rng, *shape), normal(rng, shape[-1]), normal(rng, shape[-1])
    check(F.layer_norm(x, shape[-1:], weight, bias), oracle.layer_norm(x, weight, bias))
    check(F.layer_norm(x, shape[-1:]), oracle.layer_norm(x, np.ones(shape[-1])))


def test_layer_norm_of_several_dimensions(rng):
    x, weight = normal(rng, 4, 3, 5), normal(rng, 3, 5)
    expected = oracle.layer_norm(x.reshape(4, 15), weight.reshape(15)).reshape(4, 3, 5)
    check(F.layer_norm(x, (3, 5), weight), expected)


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_one_dimension_may_be_given_by_its_size(rng, norm):
    x = normal(rng, 4, 15)
    assert_same_bits(norm(x, 15), norm(x, (15,)))


def rms_norm(x, weight=1.0, eps=2.0**-23):
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [None, 1e-5])
def test_rms_norm(rng, shape, eps):
    x, weight = normal(rng, *shape), normal(rng, shape[-1])
    expected = rms_norm(x, weight.astype(np.float64), 2.0**-23 if eps is None else eps)
    check(F.rms_norm(x, shape[-1:], weight, eps), expected)


def test_rms_norm_of_tiny_values_depends_on_eps():
    x = np.full((1, 4), 1e-4, np.float32)
    check(F.rms_norm(x, (4,)), rms_norm(x))
    check(F.rms_norm(x, (4,), eps=1e-5), rms_norm(x, eps=1e-5))


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_layer_norm_survives_a_large_mean(rng, mean):
    x = normal(rng, 7, 200) + np.float32(mean)
    expected = oracle.layer_norm(x, np.ones(200))
    assert_within(F.layer_norm(x, (200,)), expected, 1e-5 + 1e-6 * mean)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 17, 3, 5), (700, 70)])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_by_running_statistics(rng, shape, affine):
    channels = shape[1]
    x, mean, var = normal(rng, *shape), normal(rng, channels), normal(rng, channels) ** 2
    weight, bias = (normal(rng, channels), normal(rng, channels)) if affine else (None, None)
    column = (channels,) + (1,) * (len(shape) - 2)
    expected = (x.astype(np.float64) - mean.reshape(column)) / np.sqrt(
        var.astype(np.float64).reshape(column) + 1e-5
    )
    if affine:
        expected = expected * weight.reshape(column) + bias.reshape(column)
    # 1 / sqrt(var) of a small variance magnifies the rounding error of x - mean.
    bound = 3e-6 * (1 + np.abs(expected)).max()
    assert_within(F.batch_norm(x, mean, var, weight, bias), expected, bound)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (700, 70)])
def test_batch_norm_in_training_uses_and_updates_statistics(rng, shape):
    x = normal(rng, *shape) + np.float32(3)
    running_mean, running_var = normal(rng, shape[1]), normal(rng, shape[1]) ** 2
    old = running_mean.astype(np.float64), running_var.astype(np.float64)
    axes = (0, *range(2, len(shape)))
    wide = x.astype(np.float64)
    mean, var = (getattr(wide, name)(axis=axes, keepdims=True) for name in ("mean", "var"))
    out = F.batch_norm(x, running_mean, running_var, training=True, momentum=0.3)
    check(out, (wide - mean) / np.sqrt(var + 1e-5), 1e-5)
    check(running_mean, 0.7 * old[0] + 0.3 * mean.ravel())
    check(running_var, 0.7 * old[1] + 0.3 * wide.var(axis=axes, ddof=1))


def test_power_norm(rng):
    x, phi, weight = normal(rng, 40, 9), normal(rng, 9) ** 2, normal(rng, 9)
    check(F.power_norm(x, phi, weight), x / np.sqrt(phi.astype(np.float64) + 1e-5) * weight, 1e-5)
    squares = (x.astype(np.float64) ** 2).mean(axis=0)
    old = phi.astype(np.float64)
    check(F.power_norm(x, phi, training=True), x / np.sqrt(squares + 1e-5), 1e-5)
    check(phi, 0.9 * old + 0.1 * squares)


# Activations and gates


ACTIVATIONS = ("relu", "gelu", "silu", "quick_gelu", "sigmoid", "tanh")


@pytest.mark.parametrize("shape", [(), *SHAPES, (3, 5000), (9001, 1)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_of_any_shape(rng, name, shape):
    x = normal(rng, *shape, scale=3)
    check(getattr(F, name)(np.asarray(x)), oracle.ACTIVATIONS[name](x))


def test_gelu_by_tanh(rng):
    x = normal(rng, 50, 40, scale=3)
    check(F.gelu(x, approximate="tanh"), oracle.gelu_tanh(x))


GATES = {"glu": "sigmoid", "geglu": "gelu", "swiglu": "silu", "reglu": "relu"}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("gate", ["first", "second"])
def test_gate_multiplies_one_half_by_the_other_activated(rng, name, dim, gate):
    x = normal(rng, 4, 10, 66)
    a, b = np.split(x.astype(np.float64), 2, axis=dim)
    activate = oracle.ACTIVATIONS[GATES[name]]
    expected = activate(a) * b if gate == "first" else a * activate(b)
    assert_within(getattr(F, name)(x, dim, gate=gate), expected, 3e-6 * (1 + np.abs(a * b)))


# Softmax, linear, embedding


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 30, 16), (300, 129)])
@pytest.mark.parametrize("dim", [-1, 0])
def test_softmax_along_a_dimension(rng, shape, dim):
    x = normal(rng, *shape, scale=3)
    expected = np.moveaxis(oracle.softmax(np.moveaxis(x, dim, -1)), -1, dim)
    check(F.softmax(x, dim), expected)


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3), (130,)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(rng, lead, bias):
    x, weight = normal(rng, *lead, 37), normal(rng, 50, 37)
    b = normal(rng, 50) if bias else None
    size = np.abs(x) @ np.abs(weight.T) + 1
    assert_within(F.linear(x, weight, b), oracle.linear(x, weight, b), 40 * 2.0**-24 * size)


def test_embedding_looks_rows_up(rng):
    table, ids = normal(rng, 11, 5), rng.integers(0, 11, (3, 4))
    assert_same_bits(F.embedding(ids, table), table[ids])
    assert F.embedding(np.zeros((0, 2), np.int32), table).shape == (0, 2, 5)


# Layouts and out, for all functions


CALLS = {
    "layer_norm": lambda x, **kw: F.layer_norm(x, x.shape[-1:], **kw),
    "rms_norm": lambda x, **kw: F.rms_norm(x, x.shape[-1:], **kw),
    "batch_norm": lambda x, **kw: F.batch_norm(
        x, np.ones(x.shape[1], np.float32), np.ones(x.shape[1], np.float32), **kw
    ),
    "softmax": F.softmax,
    "gelu": F.gelu,
    "linear": lambda x, **kw: F.linear(
        x, np.eye(x.shape[-1], dtype=np.float32) * np.float32(2), **kw
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(rng, name, layout):
    x = normal(rng, 6, 5, 20)
    assert_same_bits(CALLS[name](layout(x)), CALLS[name](x))


@pytest.mark.parametrize("name", CALLS)
def test_out_receives_the_result_even_in_place(rng, name):
    x = normal(rng, 6, 5, 20)
    expected = CALLS[name](x)
    for out in (np.empty_like(x), column_major(x), np.empty((6, 5, 40), np.float32)[..., ::2], x):
        result = CALLS[name](x.copy() if out is not x else x, out=out)
        assert np.shares_memory(result, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", CALLS)
def test_rows_do_not_depend_on_other_rows(rng, name):
    x = normal(rng, 400, 3, 100)
    assert_same_bits(CALLS[name](x[7:8]), CALLS[name](x)[7:8])


@pytest.mark.parametrize("name", CALLS)
def test_float64_is_refused(name):
    with pytest.raises(TypeError, match="must be float32, got float64: this library computes"):
        CALLS[name](np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: F.layer_norm(x, (3,)), "normalized_shape"),
        (lambda x: F.layer_norm(x, ()), "normalized_shape"),
        (lambda x: F.layer_norm(x, (4,), np.ones(3, np.float32)), "weight must have shape"),
        (lambda x: F.rms_norm(x, (4,), eps=-1.0), "eps"),
        (lambda x: F.softmax(x, 2), "dim 2"),
        (lambda x: F.glu(x, 0), "even size"),
        (lambda x: F.gelu(x, approximate="erf"), "approximate"),
        (lambda x: F.linear(x, np.ones((2, 3), np.float32)), "weight has shape"),
        (lambda x: F.batch_norm(x, None, None), "running_mean"),
        (lambda x: F.batch_norm(x[:1], None, None, training=True), "more than one value"),
        (lambda x: F.batch_norm(x, np.ones(3, np.float32), None), "running_mean must have shape"),
        (lambda x: F.relu(x, out=np.zeros(3, np.float32)), "out must have shape"),
    ],
)
def test_error_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.zeros((3, 4), np.float32))


def test_embedding_refuses_ids_outside_the_table():
    with pytest.raises(IndexError, match="5"):
        F.embedding(np.array([0, 5]), np.zeros((5, 2), np.float32))
    with pytest.raises(TypeError, match="integers"):
        F.embedding(np.array([0.0]), np.zeros((5, 2), np.float32))

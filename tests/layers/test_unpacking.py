"""The weights of a native Linear can be read back from its panels without change, at every level."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests.kernels.test_bf16 import rounded
from tests.support import assert_same_bits, normal

pytestmark = pytest.mark.usefixtures("active_isa")

SHAPES = [(1, 1), (3, 5), (16, 32), (17, 33), (47, 64), (48, 65), (49, 31), (100, 300), (197, 130)]


def with_odd_numbers(weight):
    weight.reshape(-1)[0] = -0.0
    weight.reshape(-1)[-1] = 1e-42  # below the smallest normal number
    return weight


@pytest.mark.parametrize("shape", SHAPES)
def test_float32(rng, shape):
    weight, bias = with_odd_numbers(normal(rng, *shape)), normal(rng, shape[0])
    linear = _core.Linear(weight, bias)
    assert_same_bits(linear.weight(), weight)
    assert_same_bits(linear.bias(), bias)
    assert linear.compute_type == "float32"


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_widened(rng, shape):
    weight = with_odd_numbers(normal(rng, *shape))
    linear = _core.Linear.in_bfloat16(weight)
    assert_same_bits(linear.weight(), rounded(weight))
    assert linear.bias() is None
    assert linear.compute_type == "bfloat16"


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8(rng, shape, rotated):
    weight, bias = normal(rng, *shape), normal(rng, shape[0])
    outliers = np.arange(0, shape[1], 7, dtype=np.int32)[:64]
    values, scale = _core.quantize_weight(weight, outliers, rotated)
    kept = np.ascontiguousarray(weight[:, outliers])
    linear = _core.Linear.from_int8(values, scale, bias, outliers, kept, rotated)
    found = linear.int8()
    np.testing.assert_array_equal(found[0], values)
    assert_same_bits(found[1], scale)
    np.testing.assert_array_equal(found[2], outliers)
    assert_same_bits(found[3], kept)
    assert [part.dtype for part in found[:4]] == [np.int8, np.float32, np.int32, np.float32]
    assert found[4] is rotated
    assert linear.compute_type == "int8"


def test_int8_without_outliers(rng):
    values, scale = _core.quantize_weight(normal(rng, 20, 40))
    found = _core.Linear.from_int8(values, scale).int8()
    np.testing.assert_array_equal(found[0], values)
    assert found[2].shape == (0,)
    assert found[3].shape == (20, 0)


def test_each_method_is_for_one_type_only(rng):
    weight = normal(rng, 3, 5)
    with pytest.raises(ValueError, match="no float32 weight"):
        _core.Linear.from_int8(*_core.quantize_weight(weight)).weight()
    with pytest.raises(ValueError, match="not in int8"):
        _core.Linear(weight).int8()

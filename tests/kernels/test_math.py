"""exp, the activations and softmax at every level, over dense sweeps of all floats."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simdformer import _core
from tests import oracle
from tests.support import (
    EPS,
    LAYOUTS,
    TINY,
    U,
    assert_same_bits,
    assert_within,
    gamma,
    normal,
    sizes_around,
    ulp_error,
)

# exp(x) is a normal float32 between these. Beyond them it underflows gradually, or overflows.
LOWEST, HIGHEST = np.float32(-87.33654), np.float32(88.72283)

EXP_BOUND = 1.05  # ulp; the largest error over all floats is 1.03
EXP2_BOUND = 1.25  # the same: 0.94, and 1.23 at the generic level, which rounds products

SPECIALS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)


def floats(begin=0, end=2**32, stride=1):
    """The float32 of every stride-th bit pattern, including denormals, infinities and NaNs."""
    return np.arange(begin, end, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def check_every_float(ranges, check):
    """Call check(x) for all floats between each begin and end, given as bit patterns. This is done in pieces
    whose temporaries stay in the cache, on all cores, because NumPy and the kernels release the GIL."""

    def run(begin, end):
        with np.errstate(all="ignore"):
            check(floats(begin, end))

    piece = 2**15
    with ThreadPoolExecutor(_core.num_threads()) as pool:
        for begin, end in ranges:
            starts = range(begin, end, piece)
            for _ in pool.map(run, starts, [min(start + piece, end) for start in starts]):
                pass


def tables_with_own_float_code():
    """Levels that only add int8 products share the float32 code of the previous level."""
    isas = [isa for isa in _core.available_isas() if not isa.endswith(("_vnni", "_amx"))]
    return [_core.KernelTable(isa) for isa in isas]


def check_exp(x, actual, exact):
    normal_range = (x >= LOWEST) & (x <= HIGHEST)
    error = ulp_error(actual[normal_range], exact[normal_range])
    assert error.max(initial=0) <= EXP_BOUND, (
        f"{error.max()} ulp at {x[normal_range][error.argmax()]!r}"
    )
    low = x < LOWEST
    assert np.all(np.abs(actual[low] - exact[low]) <= TINY)
    assert np.all(actual[x > HIGHEST + 1] == np.inf)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))
    assert np.all(actual[~np.isnan(x)] >= 0)


@np.errstate(all="ignore")
def test_exp_is_within_its_bound_over_a_dense_sweep(table):
    x = floats(stride=1009)
    check_exp(x, table.exp(x), np.exp(x.astype(np.float64)))


@pytest.mark.slow
def test_exp_is_within_its_bound_for_every_float_that_has_a_finite_one():
    tables = tables_with_own_float_code()

    def check(x):
        exact = np.exp(x.astype(np.float64))
        for table in tables:
            check_exp(x, table.exp(x), exact)

    # Magnitudes above 105 are tested by the dense sweep.
    largest = int(np.float32(105).view(np.uint32))
    check_every_float([(0, largest), (2**31, 2**31 + largest)], check)


def check_exp2(x, actual):
    exact = np.exp2(x.astype(np.float64))
    normal_range = x >= -126
    error = ulp_error(actual[normal_range], exact[normal_range])
    assert error.max(initial=0) <= EXP2_BOUND, (
        f"{error.max()} ulp at {x[normal_range][error.argmax()]!r}"
    )
    low = x < -126
    assert np.all(np.abs(actual[low] - exact[low]) <= TINY)
    assert np.all(actual[x < -150] == 0)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))


@np.errstate(all="ignore")
def test_exp2_nonpositive_is_within_its_bound_over_a_dense_sweep(table):
    x = floats(begin=2**31, stride=1009)
    check_exp2(x, table.exp2_nonpositive(x))


@pytest.mark.slow
def test_exp2_nonpositive_is_within_its_bound_for_every_float_that_has_a_positive_one():
    tables = tables_with_own_float_code()

    def check(x):
        for table in tables:
            check_exp2(x, table.exp2_nonpositive(x))

    check_every_float([(2**31, 2**31 + int(np.float32(160).view(np.uint32)))], check)


def test_exp2_nonpositive_of_zero_is_one_and_of_minus_infinity_zero(table):
    x = np.array([0.0, -0.0, -np.inf, np.nan], np.float32)
    assert_same_bits(table.exp2_nonpositive(x), np.array([1.0, 1.0, 0.0, np.nan], np.float32))


def test_exp_of_zero_is_one_and_of_infinity_infinity(table):
    expected = np.array([np.nan, np.inf, 0.0, 1.0, 1.0], np.float32)
    assert_same_bits(table.exp(SPECIALS), expected)


def test_exp_of_an_element_does_not_depend_on_its_position(table, rng):
    x = normal(rng, 4 * table.lanes + 3, scale=20)
    whole = table.exp(x)
    for start in range(len(x)):
        assert_same_bits(table.exp(x[start:]), whole[start:])


# |error| <= relative * |y| + absolute * min(|x|, 8), both in EPS. erf and 1 + tanh have an absolute error,
# which GELU multiplies by x / 2; 1.702 x is rounded before exp. Below -88.7 the exponential overflows, and
# gated activations become 0 slightly too early: UNDERFLOW.
ACTIVATION_BOUNDS = {
    "identity": (0, 0),
    "relu": (0, 0),
    "gelu": (2, 1),
    "gelu_tanh": (2, 0.5),
    "silu": (4, 0),
    "quick_gelu": (4, 0.01),
    "sigmoid": (2, 0),
    "tanh": (2, 0),
}
UNDERFLOW = 100 * TINY


def test_every_activation_has_an_oracle_and_a_bound():
    known = sorted(_core.activations())
    assert sorted(oracle.ACTIVATIONS) == known
    assert sorted(ACTIVATION_BOUNDS) == known


@pytest.mark.parametrize("name", _core.activations())
@np.errstate(all="ignore")
def test_activation_is_within_its_bound_over_a_dense_sweep(table, name):
    x = floats(stride=40009)
    x = x[np.isfinite(x)]
    x = np.concatenate([x, np.linspace(-20, 20, 100_001, dtype=np.float32)])
    y = table.activation(name, x)
    assert np.isfinite(y).all()
    relative, absolute = ACTIVATION_BOUNDS[name]
    exact = oracle.ACTIVATIONS[name](x)
    bound = EPS * (relative * np.abs(exact) + absolute * np.minimum(np.abs(x), 8))
    assert_within(y, exact, bound + UNDERFLOW)


LIMITS = {  # at -inf and at +inf
    "identity": (-np.inf, np.inf),
    "relu": (0, np.inf),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
}


@pytest.mark.parametrize("name", _core.activations())
def test_activation_at_infinity_and_nan(table, name):
    y = table.activation(name, SPECIALS)
    assert np.isnan(y[0])
    assert y[1] == LIMITS.get(name, (None, np.inf))[1]
    if name in LIMITS:  # gated activations are -inf * 0: NaN, as in torch
        assert y[2] == LIMITS[name][0]


@pytest.mark.parametrize("name", ["tanh", "identity"])
def test_activation_is_odd_to_the_bit(table, name, rng):
    x = np.concatenate([normal(rng, 1000, scale=3), [0.0]]).astype(np.float32)
    assert_same_bits(table.activation(name, -x), -table.activation(name, x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_activation_accepts_any_memory_layout(table, rng, layout):
    x = normal(rng, 37)
    assert_same_bits(table.activation("gelu", layout(x)), table.activation("gelu", x))


# Softmax


def softmax_bound(x):
    """exp: 1 ulp and the rounding error of x - max, which is absolute in the exponent; plus those of sum and
    quotient."""
    x = np.asarray(x, np.float64)
    spread = np.abs(x - x.max(axis=-1, keepdims=True))
    rounding = np.minimum(spread, 110) * U
    return (rounding + rounding.max(axis=-1, keepdims=True) + gamma(x.shape[-1] + 12)) * (
        oracle.softmax(x)
    ) + 2 * TINY


def check_softmax(table, x):
    assert_within(table.softmax(x), oracle.softmax(x), softmax_bound(x))


def test_softmax_is_within_its_bound_around_the_lanes(table, rng):
    for n in sizes_around(table.lanes, 2 * table.lanes, 4 * table.lanes, 500)[1:]:
        for scale in (0.1, 3, 100):
            check_softmax(table, normal(rng, 3, n, scale=scale))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=50),
        elements=st.floats(-(2.0**127), 2.0**127, width=32),
    )
)
def test_softmax_is_within_its_bound_for_any_finite_input(isa, x):
    check_softmax(_core.KernelTable(isa), x)


def test_softmax_rows_sum_to_one(table, rng):
    y = table.softmax(normal(rng, 50, 333, scale=5)).astype(np.float64)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)


def test_softmax_is_invariant_to_a_shift(table):
    x = np.arange(37, dtype=np.float32)[None]  # whole numbers: x + 2^20 is exact
    assert_same_bits(table.softmax(x + np.float32(2**20)), table.softmax(x))


def test_softmax_gives_minus_infinity_no_weight(table, rng):
    x = normal(rng, 4, 37)
    x[:, 5:20] = -np.inf
    y = table.softmax(x)
    np.testing.assert_array_equal(y[:, 5:20], 0)
    kept = np.delete(x, np.s_[5:20], 1)
    assert_within(np.delete(y, np.s_[5:20], 1), oracle.softmax(kept), softmax_bound(kept))


def test_softmax_of_a_row_of_minus_infinity_is_nan(table):
    # As in torch: no element can have a weight. Masks are handled before softmax.
    assert np.isnan(table.softmax(np.full((1, 37), -np.inf, np.float32))).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_softmax_keeps_a_bad_value_in_its_row(table, rng, poison):
    x = normal(rng, 5, 37)
    clean = table.softmax(x)
    x[2, 36] = poison
    y = table.softmax(x)
    assert np.isnan(y[2]).any()
    assert_same_bits(np.delete(y, 2, 0), np.delete(clean, 2, 0))


def test_softmax_row_does_not_depend_on_other_rows(table, rng):
    x = normal(rng, 9, 101)
    whole = table.softmax(x)
    for m in range(1, len(x)):
        assert_same_bits(table.softmax(x[m:]), whole[m:])


def test_kernels_do_not_change_the_handling_of_denormals(table, rng):
    table.gemm(normal(rng, 9, 40), normal(rng, 40, 40))
    table.softmax(normal(rng, 9, 40))
    assert sys.float_info.min / 2 > 0
    assert np.float32(TINY) / np.float32(2) > 0

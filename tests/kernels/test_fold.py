"""log1p and folds over rows at every level."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracle
from tests.support import EPS, assert_same_bits, assert_within, normal, sizes_around, ulp_error

FOLDS = ["max", "sum_log1p", "sum_log1p_twice"]


def test_log1p_is_accurate_over_its_whole_range(table):
    x = np.concatenate(
        [np.geomspace(1e-38, 3e38, 200_000), np.linspace(0, 40, 100_000), [0.5, 1, 2**24]]
    ).astype(np.float32)
    assert ulp_error(table.log1p(x), np.log1p(x.astype(np.float64))).max() <= 2


def test_log1p_of_zero_infinity_and_nan(table):
    x = np.array([0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(table.log1p(x), x)


def test_log1p_is_monotonic(table):
    x = np.geomspace(1e-3, 100, 100_001).astype(np.float32)
    y = table.log1p(x)
    # Adjacent values may be in the wrong order by an error of a few ulp.
    assert (np.diff(y) >= -4 * EPS * y[1:]).all()


@pytest.mark.parametrize("kind", FOLDS)
def test_a_fold_is_within_its_bound_around_the_lanes(table, rng, kind):
    for cols in sizes_around(table.lanes, 2 * table.lanes, 130)[1:]:
        for rows in (1, 2, 7):
            x, bias, y = normal(rng, rows, cols, scale=3), normal(rng, cols), normal(rng, cols)
            expected = oracle.fold(kind, x, bias, start=y)
            bound = EPS * (4 + rows) * (rows * (1 + np.abs(x).max()) + np.abs(y) + np.abs(bias))
            table.fold_rows_into(kind, x, bias, y)
            assert_within(y, expected, bound)


@pytest.mark.parametrize("kind", FOLDS)
def test_a_fold_without_bias_adds_none(table, rng, kind):
    x, y = normal(rng, 5, 37), np.zeros(37, np.float32)
    other = y.copy()
    table.fold_rows_into(kind, x, None, y)
    table.fold_rows_into(kind, x, np.zeros(37, np.float32), other)
    assert_same_bits(y, other)


@pytest.mark.parametrize("kind", FOLDS)
def test_a_fold_continues_from_its_previous_result(table, rng, kind):
    x, whole, parts = normal(rng, 11, 37), np.zeros(37, np.float32), np.zeros(37, np.float32)
    table.fold_rows_into(kind, x, None, whole)
    for part in (x[:4], x[4:5], x[5:]):
        table.fold_rows_into(kind, part, None, parts)
    assert_same_bits(parts, whole)


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("row", [0, 3])
def test_a_fold_keeps_nan_in_its_column(table, rng, kind, row):
    x, y, clean = normal(rng, 4, 37), np.zeros(37, np.float32), np.zeros(37, np.float32)
    table.fold_rows_into(kind, x, None, clean)
    x[row, 36] = np.nan
    table.fold_rows_into(kind, x, None, y)
    assert np.isnan(y[36])
    assert_same_bits(y[:36], clean[:36])

"""gemm_bf16: weights rounded to bfloat16, then the arithmetic and error bound of float32, at every level."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.folder.resolve import resolve_model
from tests import oracle
from tests.support import TINY, assert_same_bits, assert_within, gamma, normal, sizes_around


def rounded(x):
    """Rounded to the nearest bfloat16, ties to even, as float32."""
    bits = x.view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


def check(table, rng, m, n, k):
    a, weight, bias = normal(rng, m, k), normal(rng, n, k), normal(rng, n)
    exact = rounded(weight)
    size = oracle.linear(np.abs(a), np.abs(exact), np.abs(bias))
    bound = gamma(k + 1) * size + k * TINY
    assert_within(table.gemm_bf16(a, weight, bias), oracle.linear(a, exact, bias), bound)


def test_gemm_bf16_is_within_float32s_bound_around_the_tile(table, rng):
    mr, nr = table.gemm_tile
    for m in sizes_around(mr, 4 * mr, 5 * mr):
        for n in sizes_around(table.lanes, nr, 2 * nr)[1:]:
            check(table, rng, m, n, 19)


def test_gemm_bf16_is_within_float32s_bound_around_amx_tiles_and_their_blocks(table, rng):
    for m in sizes_around(16, 32, 128, 160):
        check(table, rng, m, 33, 65)
    for n in sizes_around(16, 32, 64, 96)[1:]:
        check(table, rng, 17, n, 65)
    for k in sizes_around(16, 32, 384, 800)[1:]:
        check(table, rng, 33, 17, k)


def test_gemm_bf16_is_within_float32s_bound_at_any_magnitude(table, rng):
    for exponent in [-140, -120, -100, -60, -41, -39, 0, 60, 100, 126]:
        a, weight = normal(rng, 18, 70), rounded(normal(rng, 17, 70))
        scale = np.float32(2.0**exponent)
        for x, w in [(a * scale, weight), (a, rounded(weight * scale))]:
            with np.errstate(over="ignore"):
                size = oracle.linear(np.abs(x), np.abs(w))
            finite = size < np.finfo(np.float32).max
            y, exact = table.gemm_bf16(x, w), oracle.linear(x, w)
            bound = gamma(71) * size + 70 * TINY
            assert_within(y[finite], exact[finite], bound[finite])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_gemms_values_and_leaves_the_others_their_bits(
    table, rng, value
):
    a, weight = normal(rng, 40, 500), np.abs(rounded(normal(rng, 35, 500)))
    before = table.gemm_bf16(a, weight)
    rows, columns = [0, 17, 39], [3, 400, 499]
    a[rows, columns] = value
    y = table.gemm_bf16(a, weight)
    np.testing.assert_array_equal(y[rows], table.gemm(a[rows], weight))
    assert not np.isfinite(y[rows]).any()
    others = np.setdiff1d(np.arange(40), rows)
    assert_same_bits(y[others], before[others])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-40])
def test_a_weight_that_tiles_cannot_hold_has_gemms_bits(table, rng, value):
    a, weight = normal(rng, 20, 70), np.full((33, 70), np.float32(1e-30))
    weight[5, 60] = value
    weight = np.where(np.isfinite(weight), rounded(weight), weight)
    assert_same_bits(table.gemm_bf16(a, weight), table.gemm(a, weight))


def test_gemm_bf16_is_within_float32s_bound_for_any_depth(table, rng):
    mr, nr = table.gemm_tile
    for k in sizes_around(table.lanes, 128, 384, 1536)[1:]:
        check(table, rng, mr + 1, nr + 1, k)
        check(table, rng, 5 * mr, nr + 1, k)


def test_gemm_bf16_has_float32s_bits_for_weights_it_represents(table, rng):
    if table.has_bf16_tiles:
        pytest.skip("tiles sum in an order of their own")
    mr, nr = table.gemm_tile
    for m in [1, mr + 1, 6 * mr]:
        a, weight, bias = (
            normal(rng, m, 700),
            rounded(normal(rng, nr + 5, 700)),
            normal(rng, nr + 5),
        )
        assert_same_bits(table.gemm_bf16(a, weight, bias), table.gemm(a, weight, bias))


def test_weights_are_rounded_to_nearest_and_ties_to_even(table):
    values = np.array(
        [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 0, -0.0], np.float32
    )
    values = np.append(values, np.float32([1e-40, 3.4028235e38, np.inf])).astype(np.float32)
    y = table.gemm_bf16(np.ones((1, 1), np.float32), values[:, None])[0]
    np.testing.assert_array_equal(y, rounded(values))
    assert np.isnan(table.gemm_bf16(np.ones((1, 1), np.float32), np.float32([[np.nan]])))


def test_gemm_bf16_row_does_not_depend_on_other_rows(table, rng):
    mr, nr = table.gemm_tile
    a, weight, bias = normal(rng, 6 * mr + 1, 700), normal(rng, nr + 5, 700), normal(rng, nr + 5)
    whole = table.gemm_bf16(a, weight, bias)
    for m in [1, 2, mr, 4 * mr, 4 * mr + 1, 5 * mr, 6 * mr]:
        assert_same_bits(table.gemm_bf16(a[:m], weight, bias), whole[:m])
        assert_same_bits(table.gemm_bf16(a[m:], weight, bias), whole[m:])


@pytest.mark.parametrize("activation", ["identity", "gelu"])
def test_gemm_bf16_epilogues_have_the_bits_of_the_separate_steps(table, rng, activation):
    mr, nr = table.gemm_tile
    for m in [1, 6 * mr]:
        a, weight, bias = normal(rng, m, 300), normal(rng, nr + 1, 300), normal(rng, nr + 1)
        residual = normal(rng, m, nr + 1)
        fused = table.gemm_bf16(
            a, weight, bias, activation=activation, residual=residual, norm_weight=bias
        )
        active = table.activation(activation, table.gemm_bf16(a, weight, bias).ravel())
        summed = active.reshape(m, nr + 1) + residual
        assert_same_bits(fused, table.layer_norm(summed, bias))


def test_bfloat16_vectors_are_close_to_float32s_and_the_same_in_any_batch():
    try:
        folder = resolve_model("all-MiniLM-L6-v2", local_files_only=True)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    texts = ["a short one", "words " * 60, "where do the birds go in winter?", ""]
    model = SentenceTransformer(folder, compute_type="bfloat16", num_threads=2)
    assert model.compute_type == "bfloat16"
    whole, exact = model.encode(texts), SentenceTransformer(folder).encode(texts)
    cosines = (whole.astype(np.float64) * exact).sum(1)
    # The minimum over 2,000 docstrings is 0.99998 (docs/quantization.md); these texts are less usual.
    assert 0.99995 <= cosines.min() < 1 - 1e-9
    for text, vector in zip(texts, whole, strict=True):
        assert_same_bits(model.encode(text), vector)
    one_thread = SentenceTransformer(folder, compute_type="bfloat16", num_threads=1)
    assert_same_bits(one_thread.encode(texts), whole)

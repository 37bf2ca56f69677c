// SPDX-License-Identifier: Apache-2.0
// The initial values of gemm_s8's sums on AMX: for each group the row's minimum times the sum of
// weights, plus the outliers. They are computed as products of bfloat16 in one step of tiles.
// AVX-512 would take as long for them as for everything else. Both factors are rounded to 16 bits,
// as the sum of two bfloat16 (subnormal ones count as 0). The relative error of a product is at
// most 2^-15; the codes have 8 bits.
#pragma once

#include "kernels/blocks_amx.inl.h"
#include "kernels/gemm_s8.inl.h"
#include "simd/split_avx512.h"

namespace simdformer {
namespace {

// A tile's row has 16 pairs. (x1, x1) and (x2, x2) of A are multiplied with (w1, w2) twice.
constexpr size_t kStartTerms = kLanes / 2;
constexpr size_t kStartTile = kAmxRows * kAmxBytes / sizeof(uint16_t);

// The number of outliers that fit beside the minima. FMAs add further ones.
SIMDFORMER_INLINE size_t num_start_outliers(size_t groups, size_t num_outliers) {
  return min_size(num_outliers, kStartTerms - groups);
}

// Rows of A: (rows rounded up to 16, 16 pairs).
SIMDFORMER_INLINE void pack_start_rows(size_t groups, size_t rows, const S8Rows& a, uint16_t* to) {
  const size_t outliers = num_start_outliers(groups, a.num_outliers);
  alignas(64) float pairs[kLanes * kLanes] = {};
  const auto store = [&](size_t term, const float* x, size_t count) {
    const SplitTwo parts = split_two(VecF32::load(x, count));
    pair_up(parts.first, parts.first).store(pairs + term * kLanes);
    pair_up(parts.second, parts.second).store(pairs + (kStartTerms + term) * kLanes);
  };
  for (size_t row = 0; row < rows; row += kLanes, to += kStartTile) {
    const size_t count = min_size(kLanes, rows - row);
    for (size_t i = 0; i < groups; ++i) store(i, a.minimum + i * a.capacity + row, count);
    for (size_t i = 0; i < outliers; ++i) {
      store(groups + i, a.outliers + i * a.capacity + row, count);
    }
    transpose_tile(pairs, kLanes, reinterpret_cast<float*>(to), kLanes);
  }
}

// One vector of W: (16 pairs, 16 columns). It is filled with zeros first, so missing terms add
// nothing.
SIMDFORMER_INLINE void pack_start_weights(size_t groups, size_t num_outliers, const S8Panel& w,
                                          uint16_t* to) {
  const size_t outliers = num_start_outliers(groups, num_outliers);
  const auto store = [&](size_t term, VecF32 pairs) {
    pairs.store(reinterpret_cast<float*>(to) + term * kLanes);
    pairs.store(reinterpret_cast<float*>(to) + (kStartTerms + term) * kLanes);
  };
  const auto pairs_of = [](const float* x) {
    const SplitTwo parts = split_two(VecF32::load(x));
    return pair_up(parts.first, parts.second);
  };
  size_t term = 0;
  for (size_t i = 0; i < groups; ++i, ++term)
    store(term, pairs_of(w.ranges + (2 * i + 1) * kLanes));
  for (size_t i = 0; i < outliers; ++i, ++term) {
    store(term, pairs_of(w.outliers + i * w.outlier_step));
  }
}

// Adds the outliers that did not fit.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_more_outliers(size_t groups, const S8Rows& a, const S8Panel (&w)[2],
                                         VecF32 (&sum)[MR][NV]) {
  for (size_t o = num_start_outliers(groups, a.num_outliers); o < a.num_outliers; ++o) {
    VecF32 wv[NV];
    for (size_t j = 0; j < NV; ++j) wv[j] = VecF32::load(w[j].outliers + o * w[j].outlier_step);
    add_outlier(a.outliers + o * a.capacity, wv, sum);
  }
}

}  // namespace
}  // namespace simdformer

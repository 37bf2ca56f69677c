// SPDX-License-Identifier: Apache-2.0
// Loops over the elements of a row: whole vectors, then one partial vector.
#pragma once

#include "simd/macros.h"

namespace simdformer {
namespace {

constexpr size_t kLanes = VecF32::kLanes;

SIMDFORMER_INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
SIMDFORMER_INLINE size_t max_size(size_t a, size_t b) { return a < b ? b : a; }
SIMDFORMER_INLINE size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
SIMDFORMER_INLINE size_t round_up(size_t a, size_t b) { return ceil_div(a, b) * b; }

// x[0, n), followed by zeros.
SIMDFORMER_INLINE VecF32 load_first(const float* x, size_t n) {
  if (n >= kLanes) return VecF32::load(x);
  return n > 0 ? VecF32::load(x, n) : VecF32::zero();
}

// y[i] = op(x[i])
template <typename Op>
SIMDFORMER_INLINE void map_row(size_t n, const float* x, float* y, Op op) {
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) op(VecF32::load(x + i)).store(y + i);
  if (i < n) op(VecF32::load(x + i, n - i)).store(y + i, n - i);
}

// y[i] = op(y[i], x[i])
template <typename Op>
SIMDFORMER_INLINE void update_row(size_t n, const float* x, float* y, Op op) {
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) {
    op(VecF32::load(y + i), VecF32::load(x + i)).store(y + i);
  }
  if (i < n) op(VecF32::load(y + i, n - i), VecF32::load(x + i, n - i)).store(y + i, n - i);
}

// sum of op(x[i]) in a fixed order: four partial sums of vectors, then the lanes' tree.
template <typename Op>
SIMDFORMER_INLINE float sum_row(size_t n, const float* x, Op op) {
  VecF32 s0 = VecF32::zero();
  VecF32 s1 = s0;
  VecF32 s2 = s0;
  VecF32 s3 = s0;
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, 4 * kLanes, n); i += 4 * kLanes) {
    s0 = s0 + op(VecF32::load(x + i));
    s1 = s1 + op(VecF32::load(x + i + kLanes));
    s2 = s2 + op(VecF32::load(x + i + 2 * kLanes));
    s3 = s3 + op(VecF32::load(x + i + 3 * kLanes));
  }
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) s0 = s0 + op(VecF32::load(x + i));
  if (i < n) s1 = s1 + select_first(n - i, op(VecF32::load(x + i, n - i)), VecF32::zero());
  return reduce_add((s0 + s1) + (s2 + s3));
}

// x - x is 0 for finite numbers, and NaN for NaN and infinity.
SIMDFORMER_INLINE bool all_finite(const float* x, size_t n) {
  return sum_row(n, x, [](VecF32 v) { return v - v; }) == 0.0f;
}

SIMDFORMER_INLINE void add_row(size_t n, const float* x, float* y) {
  update_row(n, x, y, [](VecF32 a, VecF32 b) { return a + b; });
}

SIMDFORMER_INLINE void copy_row(size_t n, const float* x, float* y) {
  map_row(n, x, y, [](VecF32 v) { return v; });
}

}  // namespace
}  // namespace simdformer

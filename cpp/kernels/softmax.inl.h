// SPDX-License-Identifier: Apache-2.0
// Softmax of a row, and its unnormalized form for attention.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"
#include "simd/math.h"

namespace simdformer {
namespace {

constexpr float kInfinity = __builtin_inff();

// The largest element, -inf for an empty row. NaN may be ignored here, because exp returns it.
SIMDFORMER_INLINE float max_row(size_t n, const float* x) {
  const VecF32 lowest = VecF32::broadcast(-kInfinity);
  VecF32 m0 = lowest;
  VecF32 m1 = lowest;
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, 2 * kLanes, n); i += 2 * kLanes) {
    m0 = max(VecF32::load(x + i), m0);
    m1 = max(VecF32::load(x + i + kLanes), m1);
  }
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) m0 = max(VecF32::load(x + i), m0);
  if (i < n) m1 = max(select_first(n - i, VecF32::load(x + i, n - i), lowest), m1);
  return reduce_max(max(m0, m1));
}

// y[i] = e^(scale (x[i] - max)). Returns their sum. Subtracting before scaling makes the largest
// element exactly e^0. scale > 0. Vector i is added to partial sum i % 2, so that zeros after the
// last element do not change the bits of the sum.
SIMDFORMER_INLINE float exp_row_sum(size_t n, float scale, float max_value, const float* x,
                                    float* y) {
  constexpr float kLog2E = 1.44269504f;
  const VecF32 max_v = VecF32::broadcast(max_value);
  const VecF32 scale_v = VecF32::broadcast(scale * kLog2E);
  VecF32 even = VecF32::zero();
  VecF32 odd = VecF32::zero();
  const auto exp_of = [&](VecF32 v) { return exp2_nonpositive((v - max_v) * scale_v); };
  const auto whole = [&](size_t i, VecF32& sum) {
    const VecF32 e = exp_of(VecF32::load(x + i));
    e.store(y + i);
    sum = sum + e;
  };
  const auto partial = [&](size_t i, VecF32& sum) {
    const VecF32 e = exp_of(VecF32::load(x + i, n - i));
    e.store(y + i, n - i);
    sum = sum + select_first(n - i, e, VecF32::zero());
  };
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, 2 * kLanes, n); i += 2 * kLanes) {
    whole(i, even);
    whole(i + kLanes, odd);
  }
  if (i + kLanes <= n) {
    whole(i, even);
    if (i + kLanes < n) partial(i + kLanes, odd);
  } else if (i < n) {
    partial(i, even);
  }
  return reduce_add(even + odd);
}

SIMDFORMER_INLINE void scale_row(size_t n, float factor, const float* x, float* y) {
  const VecF32 f = VecF32::broadcast(factor);
  map_row(n, x, y, [&](VecF32 v) { return v * f; });
}

void exp2_nonpositive(size_t n, const float* x, float* y) {
  map_row(n, x, y, [](VecF32 v) { return exp2_nonpositive(v); });
}

void softmax(size_t rows, size_t cols, const float* x, float* y) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const float sum = exp_row_sum(cols, 1.0f, max_row(cols, x), x, y);
    scale_row(cols, 1.0f / sum, y, y);
  }
}

}  // namespace
}  // namespace simdformer

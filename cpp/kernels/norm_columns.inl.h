// SPDX-License-Identifier: Apache-2.0
// Statistics of columns and normalization by them (formulas at NormColumnsArgs and column_moments).
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

// Rows are summed in blocks of this size, so that rounding errors grow with the number of blocks
// and not with the number of rows.
constexpr size_t kMomentRows = 64;

// sum_i op(x[i, 0..kLanes)) for one vector of columns, of which n are valid.
template <typename Op>
SIMDFORMER_INLINE VecF32 sum_columns(size_t rows, size_t n, const float* x, size_t ldx, Op op) {
  VecF32 total = VecF32::zero();
  for (size_t first = 0; first < rows; first += kMomentRows) {
    const size_t end = min_size(rows, first + kMomentRows);
    VecF32 sum = VecF32::zero();
    for (size_t i = first; i < end; ++i) {
      const float* p = x + i * ldx;
      sum = sum + op(n == kLanes ? VecF32::load(p) : VecF32::load(p, n));
    }
    total = total + sum;
  }
  return total;
}

void column_moments(size_t rows, size_t cols, const float* x, size_t ldx, float* mean,
                    float* variance) {
  const VecF32 count = VecF32::broadcast(static_cast<float>(rows));
  for (size_t j = 0; j < cols; j += kLanes) {
    const size_t n = min_size(kLanes, cols - j);
    const VecF32 m = sum_columns(rows, n, x + j, ldx, [](VecF32 v) { return v; }) / count;
    const VecF32 squares = sum_columns(rows, n, x + j, ldx, [&](VecF32 v) {
      const VecF32 d = v - m;
      return d * d;
    });
    m.store(mean + j, n);
    (squares / count).store(variance + j, n);
  }
}

SIMDFORMER_INLINE void norm_columns_row(const NormColumnsArgs& a, const float* x, float* y) {
  size_t j = 0;
  for (; SIMDFORMER_FITS(j, kLanes, a.cols); j += kLanes) {
    const VecF32 d = VecF32::load(x + j) - VecF32::load(a.mean + j);
    fma(d, VecF32::load(a.scale + j), VecF32::load(a.shift + j)).store(y + j);
  }
  if (j < a.cols) {
    const size_t n = a.cols - j;
    const VecF32 d = VecF32::load(x + j, n) - VecF32::load(a.mean + j, n);
    fma(d, VecF32::load(a.scale + j, n), VecF32::load(a.shift + j, n)).store(y + j, n);
  }
}

void norm_columns(const NormColumnsArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) norm_columns_row(a, a.x + r * a.ldx, a.y + r * a.ldy);
}

}  // namespace
}  // namespace simdformer

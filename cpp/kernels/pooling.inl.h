// SPDX-License-Identifier: Apache-2.0
// One vector from a sequence's rows (formulas at Pooling), and L2 normalization.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"
#include "kernels/softmax.inl.h"

namespace simdformer {
namespace {

// y = op(...op(op(x[0], x[1]), x[2])...), row by row.
template <typename Op>
SIMDFORMER_INLINE void fold_rows(size_t rows, size_t cols, const float* x, size_t ldx, float* y,
                                 Op op) {
  copy_row(cols, x, y);
  for (size_t r = 1; r < rows; ++r) update_row(cols, x + r * ldx, y, op);
}

SIMDFORMER_INLINE void sum_rows(size_t rows, size_t cols, const float* x, size_t ldx, float* y) {
  fold_rows(rows, cols, x, ldx, y, [](VecF32 a, VecF32 b) { return a + b; });
}

SIMDFORMER_INLINE void weighted_mean(size_t rows, size_t cols, const float* x, size_t ldx,
                                     size_t first, float* y) {
  scale_row(cols, static_cast<float>(first + 1), x, y);
  for (size_t r = 1; r < rows; ++r) {
    const VecF32 weight = VecF32::broadcast(static_cast<float>(first + r + 1));
    update_row(cols, x + r * ldx, y, [&](VecF32 a, VecF32 b) { return fma(b, weight, a); });
  }
  const double total = 0.5 * static_cast<double>(rows) * static_cast<double>(2 * first + rows + 1);
  scale_row(cols, static_cast<float>(1.0 / total), y, y);
}

void pool(Pooling mode, size_t rows, size_t cols, const float* x, size_t ldx, size_t first,
          float* y) {
  const float n = static_cast<float>(rows);
  switch (mode) {
    case Pooling::kCls:
      return copy_row(cols, x, y);
    case Pooling::kMax:
      return fold_rows(rows, cols, x, ldx, y, [](VecF32 a, VecF32 b) {
        return select(is_nan(a), a, max(a, b));  // max() would lose a NaN in a
      });
    case Pooling::kMean:
      sum_rows(rows, cols, x, ldx, y);
      return scale_row(cols, 1.0f / n, y, y);
    case Pooling::kMeanSqrtLen:
      sum_rows(rows, cols, x, ldx, y);
      return scale_row(cols, 1.0f / __builtin_sqrtf(n), y, y);
    case Pooling::kWeightedMean:
      return weighted_mean(rows, cols, x, ldx, first, y);
    case Pooling::kLastToken:
      return copy_row(cols, x + (rows - 1) * ldx, y);
  }
}

SIMDFORMER_INLINE float squared_norm(size_t n, const float* x) {
  return sum_row(n, x, [](VecF32 v) { return v * v; });
}

void squared_norms(size_t rows, size_t cols, const float* x, size_t ldx, float* y) {
  for (size_t r = 0; r < rows; ++r) y[r] = squared_norm(cols, x + r * ldx);
}

void l2_normalize(size_t rows, size_t cols, float eps, const float* x, float* y) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const float norm = __builtin_sqrtf(squared_norm(cols, x));
    scale_row(cols, 1.0f / (norm < eps ? eps : norm), x, y);
  }
}

}  // namespace
}  // namespace simdformer

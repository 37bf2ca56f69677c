// SPDX-License-Identifier: Apache-2.0
// Folds over the rows of a product, column by column (formulas at FoldArgs).
#pragma once

#include "kernels/activation.inl.h"
#include "kernels/kernels.h"
#include "kernels/rows.inl.h"
#include "simd/math.h"

namespace simdformer {
namespace {

void log1p(size_t n, const float* x, float* y) {
  map_row(n, x, y, [](VecF32 v) { return log1p(v); });
}

// y = op(y, x + bias) for one row after another, so each column is folded in the order of rows.
template <typename Op>
SIMDFORMER_INLINE void fold_each(const FoldArgs& args, Op op) {
  for (size_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.ldx;
    size_t i = 0;
    for (; SIMDFORMER_FITS(i, kLanes, args.cols); i += kLanes) {
      VecF32 v = VecF32::load(x + i);
      if (args.bias) v = v + VecF32::load(args.bias + i);
      op(VecF32::load(args.y + i), v).store(args.y + i);
    }
    if (const size_t rest = args.cols - i; rest > 0) {
      VecF32 v = VecF32::load(x + i, rest);
      if (args.bias) v = v + VecF32::load(args.bias + i, rest);
      op(VecF32::load(args.y + i, rest), v).store(args.y + i, rest);
    }
  }
}

void fold_rows_into(const FoldArgs& args) {
  switch (args.fold) {
    case Fold::kMax:
      return fold_each(args, [](VecF32 y, VecF32 x) { return select(is_nan(y), y, max(y, x)); });
    case Fold::kSumLog1p:
      return fold_each(args, [](VecF32 y, VecF32 x) { return y + log1p(relu(x)); });
    case Fold::kSumLog1pTwice:
      return fold_each(args, [](VecF32 y, VecF32 x) { return y + log1p(log1p(relu(x))); });
  }
}

}  // namespace
}  // namespace simdformer

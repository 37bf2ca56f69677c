// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding of one head's rows (formula at RotaryArgs).
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

// Columns (j, j + pairs): whole vectors of first and second halves.
SIMDFORMER_INLINE void rotate_halves(size_t pairs, const float* x, const float* cos,
                                     const float* sin, float* y) {
  for (size_t j = 0; j < pairs; j += kLanes) {
    const size_t n = min_size(kLanes, pairs - j);
    const bool whole = n == kLanes;
    const auto load = [&](const float* p) { return whole ? VecF32::load(p) : VecF32::load(p, n); };
    const VecF32 c = load(cos + j);
    const VecF32 s = load(sin + j);
    const VecF32 x1 = load(x + j);
    const VecF32 x2 = load(x + pairs + j);
    const VecF32 y1 = fma(x1, c, VecF32::zero() - x2 * s);
    const VecF32 y2 = fma(x2, c, x1 * s);
    whole ? y1.store(y + j) : y1.store(y + j, n);
    whole ? y2.store(y + pairs + j) : y2.store(y + pairs + j, n);
  }
}

// Columns (2 j, 2 j + 1): the compiler vectorizes this with shuffles.
SIMDFORMER_INLINE void rotate_neighbours(size_t pairs, const float* x, const float* cos,
                                         const float* sin, float* y) {
  for (size_t j = 0; j < pairs; ++j) {
    const float x1 = x[2 * j];
    const float x2 = x[2 * j + 1];
    y[2 * j] = x1 * cos[j] - x2 * sin[j];
    y[2 * j + 1] = x2 * cos[j] + x1 * sin[j];
  }
}

void rotary(const RotaryArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.ldx;
    float* y = a.y + r * a.ldy;
    const float* cos = a.cos + r * a.ld_table;
    const float* sin = a.sin + r * a.ld_table;
    a.interleaved ? rotate_neighbours(a.pairs, x, cos, sin, y)
                  : rotate_halves(a.pairs, x, cos, sin, y);
    if (x != y) copy_row(a.cols - 2 * a.pairs, x + 2 * a.pairs, y + 2 * a.pairs);
  }
}

}  // namespace
}  // namespace simdformer

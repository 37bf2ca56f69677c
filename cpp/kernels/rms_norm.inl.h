// SPDX-License-Identifier: Apache-2.0
// Root mean square normalization (formula at RmsNormArgs; Zhang and Sennrich 2019).
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

SIMDFORMER_INLINE void rms_norm_row(const RmsNormArgs& a, const float* x, float* y) {
  const float mean =
      sum_row(a.cols, x, [](VecF32 v) { return v * v; }) / static_cast<float>(a.cols);
  const VecF32 rrms = VecF32::broadcast(1.0f) / sqrt(VecF32::broadcast(mean + a.eps));
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, a.cols); i += kLanes) {
    (VecF32::load(x + i) * rrms * VecF32::load(a.weight + i)).store(y + i);
  }
  if (i < a.cols) {
    const size_t n = a.cols - i;
    (VecF32::load(x + i, n) * rrms * VecF32::load(a.weight + i, n)).store(y + i, n);
  }
}

void rms_norm(const RmsNormArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) rms_norm_row(a, a.x + r * a.ldx, a.y + r * a.ldy);
}

}  // namespace
}  // namespace simdformer

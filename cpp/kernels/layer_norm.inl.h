// SPDX-License-Identifier: Apache-2.0
// Layer normalization (formula at LayerNormArgs). Two passes over a row in L1: E[x^2] - mean^2,
// with one pass, gives NaN in float32 at a mean of 1e4.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

SIMDFORMER_INLINE void layer_norm_row(const LayerNormArgs& a, const float* x, float* y) {
  const float size = static_cast<float>(a.cols);  // sum * (1 / n) would miss a constant row's mean
  const float mean = sum_row(a.cols, x, [](VecF32 v) { return v; }) / size;
  const VecF32 mean_v = VecF32::broadcast(mean);
  const float sum_squares = sum_row(a.cols, x, [&](VecF32 v) {
    const VecF32 d = v - mean_v;
    return d * d;
  });
  const VecF32 one = VecF32::broadcast(1.0f);
  const VecF32 rstd = one / sqrt(VecF32::broadcast(sum_squares / size + a.eps));
  const auto normalize = [&](VecF32 v, VecF32 weight, VecF32 bias) {
    return fma((v - mean_v) * rstd, weight, bias);
  };
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, a.cols); i += kLanes) {
    const VecF32 bias = a.bias ? VecF32::load(a.bias + i) : VecF32::zero();
    normalize(VecF32::load(x + i), VecF32::load(a.weight + i), bias).store(y + i);
  }
  if (i < a.cols) {
    const size_t n = a.cols - i;
    const VecF32 bias = a.bias ? VecF32::load(a.bias + i, n) : VecF32::zero();
    normalize(VecF32::load(x + i, n), VecF32::load(a.weight + i, n), bias).store(y + i, n);
  }
}

void layer_norm(const LayerNormArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) layer_norm_row(a, a.x + r * a.ldx, a.y + r * a.ldy);
}

}  // namespace
}  // namespace simdformer

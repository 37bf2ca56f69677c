// SPDX-License-Identifier: Apache-2.0
// Elementwise activations (formulas at Activation) and exp.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"
#include "simd/erf.h"
#include "simd/math.h"

namespace simdformer {
namespace {

SIMDFORMER_INLINE VecF32 gelu(VecF32 x) {
  const VecF32 half_x = x * VecF32::broadcast(0.5f);
  return fma(abs(half_x), erf_scaled(abs(x)), half_x);
}

SIMDFORMER_INLINE VecF32 gelu_tanh(VecF32 x) {
  constexpr float kSqrt2OverPi = 0.797884561f;
  const VecF32 half_x = x * VecF32::broadcast(0.5f);
  const VecF32 cubic =
      fma(x * x, VecF32::broadcast(0.044715f * kSqrt2OverPi), VecF32::broadcast(kSqrt2OverPi));
  return fma(half_x, tanh(x * cubic), half_x);
}

// max() returns its second operand for NaN, so NaN is propagated.
SIMDFORMER_INLINE VecF32 relu(VecF32 x) { return max(VecF32::zero(), x); }

SIMDFORMER_INLINE VecF32 silu(VecF32 x) { return x * sigmoid(x); }

SIMDFORMER_INLINE VecF32 quick_gelu(VecF32 x) { return x * sigmoid(x * VecF32::broadcast(1.702f)); }

// Calls use(op), where op is the function of VecF32 for this kind.
template <typename Use>
SIMDFORMER_INLINE void with_activation(Activation kind, const Use& use) {
  switch (kind) {
    case Activation::kIdentity:
      return use([](VecF32 v) { return v; });
    case Activation::kGelu:
      return use([](VecF32 v) { return gelu(v); });
    case Activation::kGeluTanh:
      return use([](VecF32 v) { return gelu_tanh(v); });
    case Activation::kRelu:
      return use([](VecF32 v) { return relu(v); });
    case Activation::kSilu:
      return use([](VecF32 v) { return silu(v); });
    case Activation::kQuickGelu:
      return use([](VecF32 v) { return quick_gelu(v); });
    case Activation::kTanh:
      return use([](VecF32 v) { return tanh(v); });
    case Activation::kSigmoid:
      return use([](VecF32 v) { return sigmoid(v); });
  }
}

// Processes `rows` rows of n columns with strides ldx and ldy; y may be x.
SIMDFORMER_NOINLINE void activate_rows(Activation kind, size_t rows, size_t n, const float* x,
                                       size_t ldx, float* y, size_t ldy) {
  with_activation(kind, [&](auto op) {
    for (size_t i = 0; i < rows; ++i) map_row(n, x + i * ldx, y + i * ldy, op);
  });
}

void activation(Activation kind, size_t n, const float* x, float* y) {
  if (kind == Activation::kIdentity && x == y) return;
  activate_rows(kind, 1, n, x, n, y, n);
}

void gated(Activation kind, size_t n, const float* gate, const float* x, float* y) {
  activation(kind, n, gate, y);
  update_row(n, x, y, [](VecF32 g, VecF32 v) { return g * v; });
}

void exp(size_t n, const float* x, float* y) {
  map_row(n, x, y, [](VecF32 v) { return exp(v); });
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Softmax of a row of attention_s16.inl.h. int32 scores, stored in the lanes of floats, are
// replaced by pairs of exponentials, in steps such that the largest one is 2^kS16Log2One.
#pragma once

#include "kernels/softmax.inl.h"

namespace simdformer {
namespace {

constexpr float kS16Log2One = 13.0f;

SIMDFORMER_INLINE size_t half_of(size_t n) { return ceil_div(n, 2); }

SIMDFORMER_INLINE VecI32 broadcast_int(int32_t x) {
  float bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return as_ints(VecF32::broadcast(bits));
}

SIMDFORMER_INLINE int32_t max_score(size_t n, const float* scores) {
  const VecI32 lowest = broadcast_int(INT32_MIN);
  VecI32 largest = lowest;
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) {
    largest = max(as_ints(VecF32::load(scores + i)), largest);
  }
  if (i < n) {
    const VecF32 v = select_first(n - i, VecF32::load(scores + i), as_floats(lowest));
    largest = max(as_ints(v), largest);
  }
  return reduce_max(largest);
}

// Replaces x by the pairs of exp_of(x). Returns the sum of all.
template <typename Exp>
SIMDFORMER_INLINE float exp_pairs(size_t n, float* x, Exp exp_of) {
  const size_t half = half_of(n);
  const VecI32 ones = broadcast_int(0x00010001);
  VecI32 sum = VecI32::zero();
  for (size_t i = 0; i < half; i += kLanes) {
    VecF32 low = exp_of(VecF32::load(x + i));
    VecF32 high = exp_of(VecF32::load(x + half + i));
    if (half + i + kLanes > n) {
      low = select_first(min_size(kLanes, half - i), low, VecF32::zero());
      high = select_first(min_size(kLanes, n - min_size(n, half + i)), high, VecF32::zero());
    }
    const VecI32 pairs = pair_s16(low, high);
    sum = dot_s16(sum, pairs, ones);
    as_floats(pairs).store(x + i);
  }
  return reduce_add(to_float(sum));
}

constexpr float kS16Log2E = 1.44269504f;

// unit: the size of a score's unit.
SIMDFORMER_INLINE float exp_scores(size_t n, float unit, int32_t max_value, float* x) {
  const VecI32 largest = broadcast_int(max_value);
  const VecF32 scale = VecF32::broadcast(unit * kS16Log2E);
  return exp_pairs(n, x, [&](VecF32 v) {
    const VecF32 difference = to_float(as_ints(v) - largest);
    return exp2_coarse(fma(difference, scale, VecF32::broadcast(kS16Log2One)));
  });
}

// Converts scores to floats, scaled and biased. Returns the largest; NaN may be ignored.
SIMDFORMER_INLINE float bias_scores(size_t n, float unit, const float* bias, float* x) {
  const VecF32 scale = VecF32::broadcast(unit);
  update_row(n, bias, x, [&](VecF32 v, VecF32 b) { return fma(to_float(as_ints(v)), scale, b); });
  return max_row(n, x);
}

// For the result of bias_scores.
SIMDFORMER_INLINE float exp_biased_scores(size_t n, float max_value, float* x) {
  const VecF32 largest = VecF32::broadcast(max_value);
  const VecF32 scale = VecF32::broadcast(kS16Log2E);
  return exp_pairs(n, x, [&](VecF32 v) {
    return exp2_coarse(fma(v - largest, scale, VecF32::broadcast(kS16Log2One)));
  });
}

// y[j] = factor * the j-th exponential; y: (n).
SIMDFORMER_INLINE void scale_pairs(size_t n, float factor, const float* pairs, float* y) {
  const size_t half = half_of(n);
  const VecF32 scale = VecF32::broadcast(factor);
  const auto unpack = [&](size_t count, int32_t which, float* to) {
    map_row(count, pairs, to, [&](VecF32 v) {
      return to_float(dot_s16(VecI32::zero(), as_ints(v), broadcast_int(which))) * scale;
    });
  };
  unpack(half, 0x00000001, y);
  unpack(n - half, 0x00010000, y + half);
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Activations to u8 as they come (formula at QuantizeArgs). Each row's each group of kS8Group
// columns has its own least value and step: a large value coarsens the steps of its group alone,
// and values of one sign, as after a GELU, use all 256 codes.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

struct GroupRange {
  float least;
  float greatest;
  bool finite;  // every value is; the range may still be beyond float32
};

// Masked: where kept is 0, x counts as 0.
template <bool Masked>
SIMDFORMER_INLINE GroupRange group_range(size_t n, const float* x, const float* kept) {
  const VecF32 zero = VecF32::zero();
  const auto mask = [&](VecF32 v, VecF32 k) { return select(less(zero, k), v, zero); };
  const VecF32 first = VecF32::broadcast(Masked && kept[0] == 0.0f ? 0.0f : x[0]);
  VecF32 least = first;
  VecF32 greatest = first;
  VecF32 taint = zero;  // NaN in a lane that met a value that is not finite
  const auto take = [&](VecF32 v) {
    least = min(v, least);
    greatest = max(v, greatest);
    taint = fma(v, zero, taint);
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VecF32 v = VecF32::load(x + i);
    if constexpr (Masked) {
      take(mask(v, VecF32::load(kept + i)));
    } else {
      take(v);
    }
  }
  if (i < n) {
    VecF32 v = VecF32::load(x + i, n - i);
    if constexpr (Masked) v = mask(v, VecF32::load(kept + i, n - i));
    take(select_first(n - i, v, first));
  }
  return {-reduce_max(zero - least), reduce_max(greatest), !any_nan(taint)};
}

// Codes of x[0, n), and 0 up to the end of the group.
SIMDFORMER_INLINE void store_codes(size_t n, const float* x, float least, float inverse_step,
                                   uint8_t* q) {
  constexpr size_t kStep = 4 * kLanes;
  static_assert(kS8Group % kStep == 0);
  const VecF32 least_v = VecF32::broadcast(least);
  const VecF32 inverse = VecF32::broadcast(inverse_step);
  VecF32 code[4];
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      code[j] = (VecF32::load(x + i + j * kLanes) - least_v) * inverse;
    }
    store_u8(code, q + i);
  }
  for (; i < kS8Group; i += kStep) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      const size_t column = min_size(n, i + j * kLanes);
      const size_t left = min_size(kLanes, n - column);
      const VecF32 v = left ? VecF32::load(x + column, left) : VecF32::zero();
      code[j] = select_first(left, (v - least_v) * inverse, VecF32::zero());
    }
    store_u8(code, q + i);
  }
}

template <bool Masked>
SIMDFORMER_INLINE void quantize_group(size_t n, const float* x, const float* kept, uint8_t* q,
                                      float* scale, float* minimum) {
  constexpr float kLeastStep = 0x1p-126f;  // a smaller one would have no reciprocal
  const GroupRange range = group_range<Masked>(n, x, kept);
  const float even = (range.greatest - range.least) * (1.0f / 255.0f);
  const float step = even < kLeastStep ? kLeastStep : even;
  *scale = range.finite ? step : __builtin_nanf("");
  *minimum = range.least;
  store_codes(n, x, range.least, 1.0f / step, q);
}

// Masking costs a tenth of the time, so only where it is asked for; copying a group to put zeros in
// its outliers' places cost more than all the rest.
template <bool Masked>
SIMDFORMER_INLINE void quantize_groups(const QuantizeArgs& a) {
  for (size_t column = 0; column < a.cols; column += kS8Group) {
    const size_t n = min_size(kS8Group, a.cols - column);
    const float* kept = Masked ? a.kept + column : nullptr;
    for (size_t row = 0; row < a.rows; ++row) {
      const float* x = a.x + row * a.ldx + column;
      const size_t place = column / kS8Group * a.capacity + row;
      uint8_t* q = a.q + place * kS8Group;
      // The usual width as a constant: loops without a counter.
      if (n == kS8Group) {
        quantize_group<Masked>(kS8Group, x, kept, q, a.scale + place, a.minimum + place);
      } else {
        quantize_group<Masked>(n, x, kept, q, a.scale + place, a.minimum + place);
      }
    }
  }
}

void quantize_rows(const QuantizeArgs& a) {
  a.kept ? quantize_groups<true>(a) : quantize_groups<false>(a);
}

}  // namespace
}  // namespace simdformer

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
  float taint;  // 0, or NaN if a value is not finite
};

SIMDFORMER_INLINE GroupRange group_range(size_t n, const float* x) {
  const VecF32 first = VecF32::broadcast(x[0]);
  VecF32 least = first;
  VecF32 greatest = first;
  VecF32 taint = VecF32::zero();
  const auto take = [&](VecF32 v) {
    least = min(v, least);
    greatest = max(v, greatest);
    taint = fma(v, VecF32::zero(), taint);
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) take(VecF32::load(x + i));
  if (i < n) take(select_first(n - i, VecF32::load(x + i, n - i), first));
  return {-reduce_max(VecF32::zero() - least), reduce_max(greatest), reduce_add(taint)};
}

SIMDFORMER_INLINE void quantize_group(size_t n, const float* x, uint8_t* q, float* scale,
                                      float* minimum) {
  constexpr float kLeastStep = 0x1p-126f;  // a smaller one would have no reciprocal
  const GroupRange range = group_range(n, x);
  const float even = (range.greatest - range.least) * (1.0f / 255.0f);
  const float step = even < kLeastStep ? kLeastStep : even;
  *scale = step + range.taint;
  *minimum = range.least;
  const VecF32 least = VecF32::broadcast(range.least);
  const VecF32 inverse = VecF32::broadcast(1.0f / step);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_u8((VecF32::load(x + i) - least) * inverse, q + i);
  for (; i < kS8Group; i += kLanes) {
    const size_t left = n - min_size(n, i);
    const VecF32 v = left ? VecF32::load(x + i, left) : VecF32::zero();
    store_u8(select_first(left, (v - least) * inverse, VecF32::zero()), q + i);
  }
}

void quantize_rows(const QuantizeArgs& a) {
  alignas(64) float rest[kS8Group];
  const S8Outliers& outliers = a.outliers;
  for (size_t row = 0; row < a.rows; ++row) {
    for (size_t group = 0; group * kS8Group < a.cols; ++group) {
      const size_t column = group * kS8Group;
      const size_t n = min_size(kS8Group, a.cols - column);
      const float* x = a.x + row * a.ldx + column;
      const uint32_t end = outliers.begin ? outliers.begin[group + 1] : 0;
      uint32_t next = outliers.begin ? outliers.begin[group] : 0;
      if (next < end) {
        copy_row(n, x, rest);
        for (; next < end; ++next) rest[outliers.place[next]] = 0.0f;
        x = rest;
      }
      quantize_group(n, x, a.q + row * a.ldq + column, a.scale + row * a.lds + group,
                     a.minimum + row * a.lds + group);
    }
  }
}

}  // namespace
}  // namespace simdformer

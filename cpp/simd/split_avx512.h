// SPDX-License-Identifier: Apache-2.0
// A float32 as the exact sum of three bfloat16: 24 bits of significand as 8 + 8 + 8 (Henry, Tang
// and Heinecke 2019, arXiv:1904.06376).
#pragma once

#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

constexpr size_t kSplitPlanes = 3;

// Each plane contains 16 values, in the upper halves of the lanes.
struct Split {
  __m512i plane[kSplitPlanes];
};

// Truncated, not rounded, so that the first plane never overflows.
SIMDFORMER_INLINE Split split(VecF32 x) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000));
  const __m512i first = _mm512_and_si512(_mm512_castps_si512(x.raw), upper);
  const __m512 rest = _mm512_sub_ps(x.raw, _mm512_castsi512_ps(first));
  const __m512i second = _mm512_and_si512(_mm512_castps_si512(rest), upper);
  const __m512 last = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
  return {{first, second, _mm512_castps_si512(last)}};
}

// Adjacent bfloat16, from the upper halves of two lanes.
SIMDFORMER_INLINE VecF32 pair_up(__m512i low, __m512i high) {
  constexpr int kFirstOrSecondAndThird = 0xF8;
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000));
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(_mm512_srli_epi32(low, 16), high, upper, kFirstOrSecondAndThird))};
}

// 16 bits of significand, as two bfloat16.
struct SplitTwo {
  __m512i first;
  __m512i second;
};

// The second one is rounded; ties do not matter.
SIMDFORMER_INLINE SplitTwo split_two(VecF32 x) {
  const Split parts = split(x);
  const __m512 rest = _mm512_sub_ps(x.raw, _mm512_castsi512_ps(parts.plane[0]));
  return {parts.plane[0], _mm512_add_epi32(_mm512_castps_si512(rest), _mm512_set1_epi32(0x8000))};
}

// Splits 32 values. Plane i is written to to + i * step; in each lane, `low` is in the lower half
// and `high` in the upper one.
SIMDFORMER_INLINE void store_split(VecF32 low, VecF32 high, uint16_t* to, size_t step) {
  const Split l = split(low);
  const Split h = split(high);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < kSplitPlanes; ++i) {
    pair_up(l.plane[i], h.plane[i]).store(reinterpret_cast<float*>(to + i * step));
  }
}

// The lower and the upper half of 16 such lanes.
SIMDFORMER_INLINE VecF32 low_half(const uint16_t* pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(pairs), 16))};
}
SIMDFORMER_INLINE VecF32 high_half(const uint16_t* pairs) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(pairs), upper))};
}

}  // namespace
}  // namespace simdformer

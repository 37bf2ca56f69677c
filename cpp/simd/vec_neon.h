// SPDX-License-Identifier: Apache-2.0
// VecF32 on NEON (AArch64): 4 lanes. Every vec_*.h has the same members with the same meaning.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "simd/macros.h"

namespace simdformer {
namespace {

struct VecF32 {
  static constexpr size_t kLanes = 4;
  static constexpr bool kHasLookup = false;
  // fma_lane multiplies by one lane of a vector. A broadcast from memory would use the multiply
  // pipes.
  static constexpr bool kHasLanes = true;
  using Mask = uint32x4_t;

  float32x4_t raw;

  static SIMDFORMER_INLINE Mask first(size_t n) {
    constexpr uint32_t kIndex[] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(kIndex), vdupq_n_u32(static_cast<uint32_t>(n)));
  }

  static SIMDFORMER_INLINE VecF32 zero() { return {vdupq_n_f32(0.0f)}; }
  static SIMDFORMER_INLINE VecF32 broadcast(float x) { return {vdupq_n_f32(x)}; }
  static SIMDFORMER_INLINE VecF32 load(const float* p) { return {vld1q_f32(p)}; }
  // Reads p[0, n), n <= kLanes. The other lanes are 0.
  static SIMDFORMER_INLINE VecF32 load(const float* p, size_t n) {
    if (n >= kLanes) return load(p);
    float32x4_t v = vdupq_n_f32(0.0f);
    if (n >= 2) v = vcombine_f32(vld1_f32(p), vget_low_f32(v));
    if (n == 1) v = vld1q_lane_f32(p, v, 0);
    if (n == 3) v = vld1q_lane_f32(p + 2, v, 2);
    return {v};
  }
  // p[0, kLanes) in bfloat16, converted exactly.
  static SIMDFORMER_INLINE VecF32 load(const uint16_t* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
  }
  SIMDFORMER_INLINE void store(float* p) const { vst1q_f32(p, raw); }
  SIMDFORMER_INLINE void store(float* p, size_t n) const {
    if (n >= kLanes) return store(p);
    if (n >= 2) vst1_f32(p, vget_low_f32(raw));
    if (n == 1) vst1q_lane_f32(p, raw, 0);
    if (n == 3) vst1q_lane_f32(p + 2, raw, 2);
  }

  friend SIMDFORMER_INLINE VecF32 operator+(VecF32 a, VecF32 b) {
    return {vaddq_f32(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator-(VecF32 a, VecF32 b) {
    return {vsubq_f32(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator*(VecF32 a, VecF32 b) {
    return {vmulq_f32(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator/(VecF32 a, VecF32 b) {
    return {vdivq_f32(a.raw, b.raw)};
  }
};

// a * b + c, rounded once.
SIMDFORMER_INLINE VecF32 fma(VecF32 a, VecF32 b, VecF32 c) {
  return {vfmaq_f32(c.raw, a.raw, b.raw)};
}
// The same with lane Lane of a.
template <int Lane>
SIMDFORMER_INLINE VecF32 fma_lane(VecF32 a, VecF32 b, VecF32 c) {
  return {vfmaq_laneq_f32(c.raw, b.raw, a.raw, Lane)};
}
SIMDFORMER_INLINE VecF32::Mask less(VecF32 a, VecF32 b) { return vcltq_f32(a.raw, b.raw); }
SIMDFORMER_INLINE VecF32::Mask is_nan(VecF32 a) { return vmvnq_u32(vceqq_f32(a.raw, a.raw)); }
// Whether a lane is NaN.
SIMDFORMER_INLINE bool any_nan(VecF32 a) { return vmaxvq_u32(is_nan(a)) != 0; }
// a where mask, else b.
SIMDFORMER_INLINE VecF32 select(VecF32::Mask mask, VecF32 a, VecF32 b) {
  return {vbslq_f32(mask, a.raw, b.raw)};
}
// a in the first n lanes, b in the rest.
SIMDFORMER_INLINE VecF32 select_first(size_t n, VecF32 a, VecF32 b) {
  return select(VecF32::first(n), a, b);
}
// If either operand is NaN, max and min return the second one. (fmax would return the NaN.)
SIMDFORMER_INLINE VecF32 max(VecF32 a, VecF32 b) { return select(less(b, a), a, b); }
SIMDFORMER_INLINE VecF32 min(VecF32 a, VecF32 b) { return select(less(a, b), a, b); }
SIMDFORMER_INLINE VecF32 sqrt(VecF32 a) { return {vsqrtq_f32(a.raw)}; }
SIMDFORMER_INLINE VecF32 abs(VecF32 a) { return {vabsq_f32(a.raw)}; }
// To the nearest integer, ties to even.
SIMDFORMER_INLINE VecF32 round(VecF32 a) { return {vrndnq_f32(a.raw)}; }
// magnitude with the sign of sign; magnitude >= 0.
SIMDFORMER_INLINE VecF32 copysign(VecF32 magnitude, VecF32 sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.raw, magnitude.raw)};
}
// x * 2^n for integral n. Subnormal results are rounded, not flushed. 2^n may be out of the normal
// range, so it is applied as two factors.
SIMDFORMER_INLINE VecF32 scale_by_pow2(VecF32 x, VecF32 n) {
  const int32x4_t whole = vcvtq_s32_f32(n.raw);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  const int32x4_t lo = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t hi = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return {vmulq_f32(vmulq_f32(x.raw, vreinterpretq_f32_s32(hi)), vreinterpretq_f32_s32(lo))};
}

// The sum of the lanes in a fixed tree: halves are added until one lane is left.
SIMDFORMER_INLINE float reduce_add(VecF32 a) {
  const float32x2_t s2 = vadd_f32(vget_low_f32(a.raw), vget_high_f32(a.raw));
  return vget_lane_f32(vpadd_f32(s2, s2), 0);
}
// The largest lane. Lanes that are NaN may be ignored.
SIMDFORMER_INLINE float reduce_max(VecF32 a) { return vmaxvq_f32(a.raw); }
// The largest lane of each of four.
SIMDFORMER_INLINE void reduce_max(const VecF32 (&a)[4], float (&largest)[4]) {
  const float32x4_t p01 = vpmaxq_f32(a[0].raw, a[1].raw);
  const float32x4_t p23 = vpmaxq_f32(a[2].raw, a[3].raw);
  vst1q_f32(largest, vpmaxq_f32(p01, p23));
}

// kLanes sums of integer products. Products of bytes are in dot_neon*.h.
struct VecI32 {
  // dot_s16 needs twice the instructions of the FMAs that it would replace.
  static constexpr bool kHasFastS16 = false;

  int32x4_t raw;

  static SIMDFORMER_INLINE VecI32 zero() { return {vdupq_n_s32(0)}; }
  // Four bytes per lane.
  static SIMDFORMER_INLINE VecI32 load(const int8_t* p) {
    return {vreinterpretq_s32_s8(vld1q_s8(p))};
  }
  static SIMDFORMER_INLINE VecI32 load(const uint8_t* p) {
    return {vreinterpretq_s32_u8(vld1q_u8(p))};
  }
  // p[0, 4) in every lane.
  static SIMDFORMER_INLINE VecI32 broadcast(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return {vdupq_n_s32(four)};
  }
};

SIMDFORMER_INLINE VecF32 to_float(VecI32 a) { return {vcvtq_f32_s32(a.raw)}; }
// The same bits as another type.
SIMDFORMER_INLINE VecI32 as_ints(VecF32 a) { return {vreinterpretq_s32_f32(a.raw)}; }
SIMDFORMER_INLINE VecF32 as_floats(VecI32 a) { return {vreinterpretq_f32_s32(a.raw)}; }
SIMDFORMER_INLINE VecI32 operator+(VecI32 a, VecI32 b) { return {vaddq_s32(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecI32 operator-(VecI32 a, VecI32 b) { return {vsubq_s32(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecI32 max(VecI32 a, VecI32 b) { return {vmaxq_s32(a.raw, b.raw)}; }
SIMDFORMER_INLINE int32_t reduce_max(VecI32 a) { return vmaxvq_s32(a.raw); }
// The sums of the lanes of a, b, c and d.
SIMDFORMER_INLINE VecI32 sum_lanes(VecI32 a, VecI32 b, VecI32 c, VecI32 d) {
  return {vpaddq_s32(vpaddq_s32(a.raw, b.raw), vpaddq_s32(c.raw, d.raw))};
}
// The lower halves of a and b, and their upper halves.
SIMDFORMER_INLINE VecI32 low_halves(VecI32 a, VecI32 b) {
  return {vreinterpretq_s32_s64(
      vzip1q_s64(vreinterpretq_s64_s32(a.raw), vreinterpretq_s64_s32(b.raw)))};
}
SIMDFORMER_INLINE VecI32 high_halves(VecI32 a, VecI32 b) {
  return {vreinterpretq_s32_s64(
      vzip2q_s64(vreinterpretq_s64_s32(a.raw), vreinterpretq_s64_s32(b.raw)))};
}
// Lanes in [-32768, 32767], rounded to the nearest integer, ties to even: low[i] in the lower half
// of lane i, high[i] in its upper half. Lanes out of range, or NaN, give any number.
SIMDFORMER_INLINE VecI32 pair_s16(VecF32 low, VecF32 high) {
  return {vsliq_n_s32(vcvtnq_s32_f32(low.raw), vcvtnq_s32_f32(high.raw), 16)};
}
// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  const int16x8_t x = vreinterpretq_s16_s32(a.raw);
  const int16x8_t y = vreinterpretq_s16_s32(b.raw);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
  return {vaddq_s32(acc.raw, vpaddq_s32(low, vmull_high_s16(x, y)))};
}
// Four vectors of lanes in [0, 255], rounded to the nearest integer, ties to even. Lanes out of
// range, or NaN, give any byte.
SIMDFORMER_INLINE void store_u8(const VecF32 (&a)[4], uint8_t* p) {
  const auto words = [](VecF32 v) { return vreinterpretq_u16_u32(vcvtnq_u32_f32(v.raw)); };
  const uint16x8_t low = vuzp1q_u16(words(a[0]), words(a[1]));
  const uint16x8_t high = vuzp1q_u16(words(a[2]), words(a[3]));
  vst1q_u8(p, vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
}

// dst[j * ldd + i] = src[i * lds + j] for i, j in [0, kLanes).
// Two rounds: pairs of floats, pairs of doubles.
SIMDFORMER_INLINE void transpose_tile(const float* src, size_t lds, float* dst, size_t ldd) {
  const float32x4x2_t even = vtrnq_f32(vld1q_f32(src), vld1q_f32(src + lds));
  const float32x4x2_t odd = vtrnq_f32(vld1q_f32(src + 2 * lds), vld1q_f32(src + 3 * lds));
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 2; ++i) {
    const float32x4_t a = even.val[i];
    const float32x4_t b = odd.val[i];
    vst1q_f32(dst + i * ldd, vcombine_f32(vget_low_f32(a), vget_low_f32(b)));
    vst1q_f32(dst + (i + 2) * ldd, vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
  }
}

}  // namespace
}  // namespace simdformer

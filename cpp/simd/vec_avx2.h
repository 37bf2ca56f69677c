// SPDX-License-Identifier: Apache-2.0
// VecF32 on AVX2 + FMA: 8 lanes. Every vec_*.h has the same members with the same meaning.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd/macros.h"

namespace simdformer {
namespace {

struct VecF32 {
  static constexpr size_t kLanes = 8;
  static constexpr bool kHasLookup = false;
  static constexpr bool kHasLanes = false;
  using Mask = __m256;

  __m256 raw;

  static SIMDFORMER_INLINE __m256i first(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane);
  }

  static SIMDFORMER_INLINE VecF32 zero() { return {_mm256_setzero_ps()}; }
  static SIMDFORMER_INLINE VecF32 broadcast(float x) {
    VecF32 v{_mm256_set1_ps(x)};
#ifdef __clang__
    // clang would load a constant with an instruction of its own in each turn of a loop.
    if (__builtin_constant_p(x)) asm("" : "+x"(v.raw));
#endif
    return v;
  }
  static SIMDFORMER_INLINE VecF32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  // Reads p[0, n), n <= kLanes. The other lanes are 0.
  static SIMDFORMER_INLINE VecF32 load(const float* p, size_t n) {
    return {_mm256_maskload_ps(p, first(n))};
  }
  // p[0, kLanes) in bfloat16, converted exactly.
  static SIMDFORMER_INLINE VecF32 load(const uint16_t* p) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  SIMDFORMER_INLINE void store(float* p) const { _mm256_storeu_ps(p, raw); }
  SIMDFORMER_INLINE void store(float* p, size_t n) const { _mm256_maskstore_ps(p, first(n), raw); }

  friend SIMDFORMER_INLINE VecF32 operator+(VecF32 a, VecF32 b) {
    return {_mm256_add_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator-(VecF32 a, VecF32 b) {
    return {_mm256_sub_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator*(VecF32 a, VecF32 b) {
    return {_mm256_mul_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator/(VecF32 a, VecF32 b) {
    return {_mm256_div_ps(a.raw, b.raw)};
  }
};

// a * b + c, rounded once.
SIMDFORMER_INLINE VecF32 fma(VecF32 a, VecF32 b, VecF32 c) {
  return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)};
}
// If either operand is NaN, max and min return the second one.
SIMDFORMER_INLINE VecF32 max(VecF32 a, VecF32 b) { return {_mm256_max_ps(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecF32 min(VecF32 a, VecF32 b) { return {_mm256_min_ps(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecF32 sqrt(VecF32 a) { return {_mm256_sqrt_ps(a.raw)}; }
SIMDFORMER_INLINE VecF32 abs(VecF32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.raw)}; }
// To the nearest integer, ties to even.
SIMDFORMER_INLINE VecF32 round(VecF32 a) { return {_mm256_round_ps(a.raw, 8)}; }
// magnitude with the sign of sign; magnitude >= 0.
SIMDFORMER_INLINE VecF32 copysign(VecF32 magnitude, VecF32 sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(magnitude.raw, _mm256_and_ps(sign.raw, bit))};
}
// x * 2^n for integral n. Subnormal results are rounded, not flushed. 2^n may be out of the normal
// range, so it is applied as two factors.
SIMDFORMER_INLINE VecF32 scale_by_pow2(VecF32 x, VecF32 n) {
  const __m256i whole = _mm256_cvtps_epi32(n.raw);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(x.raw, _mm256_castsi256_ps(hi)), _mm256_castsi256_ps(lo))};
}
SIMDFORMER_INLINE VecF32::Mask less(VecF32 a, VecF32 b) {
  return _mm256_cmp_ps(a.raw, b.raw, _CMP_LT_OQ);
}
SIMDFORMER_INLINE VecF32::Mask is_nan(VecF32 a) {
  return _mm256_cmp_ps(a.raw, a.raw, _CMP_UNORD_Q);
}
// Whether a lane is NaN.
SIMDFORMER_INLINE bool any_nan(VecF32 a) { return _mm256_movemask_ps(is_nan(a)) != 0; }
// a where mask, else b.
SIMDFORMER_INLINE VecF32 select(VecF32::Mask mask, VecF32 a, VecF32 b) {
  return {_mm256_blendv_ps(b.raw, a.raw, mask)};
}
// a in the first n lanes, b in the rest.
SIMDFORMER_INLINE VecF32 select_first(size_t n, VecF32 a, VecF32 b) {
  return select(_mm256_castsi256_ps(VecF32::first(n)), a, b);
}

// The sum of the lanes in a fixed tree: halves are added until one lane is left.
SIMDFORMER_INLINE float reduce_add(VecF32 a) {
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(a.raw), _mm256_extractf128_ps(a.raw, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
// The largest lane. Lanes that are NaN may be ignored.
SIMDFORMER_INLINE float reduce_max(VecF32 a) {
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(a.raw), _mm256_extractf128_ps(a.raw, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// The largest lane of each of four.
SIMDFORMER_INLINE void reduce_max(const VecF32 (&a)[4], float (&largest)[4]) {
  for (size_t i = 0; i < 4; ++i) largest[i] = reduce_max(a[i]);
}

// kLanes sums of integer products. dot_u8s8 and dot_s16 are in dot_avx2*.h, because they depend on
// VNNI.
struct VecI32 {
  static constexpr bool kHasFastS16 = true;

  __m256i raw;

  static SIMDFORMER_INLINE VecI32 zero() { return {_mm256_setzero_si256()}; }
  // Four bytes per lane.
  static SIMDFORMER_INLINE VecI32 load(const int8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  SIMDFORMER_INLINE void store(int8_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), raw);
  }
  // p[0, 4) in every lane.
  static SIMDFORMER_INLINE VecI32 broadcast(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return {_mm256_set1_epi32(four)};
  }
};

SIMDFORMER_INLINE VecF32 to_float(VecI32 a) { return {_mm256_cvtepi32_ps(a.raw)}; }
// The same bits as another type.
SIMDFORMER_INLINE VecI32 as_ints(VecF32 a) { return {_mm256_castps_si256(a.raw)}; }
SIMDFORMER_INLINE VecF32 as_floats(VecI32 a) { return {_mm256_castsi256_ps(a.raw)}; }
SIMDFORMER_INLINE VecI32 operator-(VecI32 a, VecI32 b) { return {_mm256_sub_epi32(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecI32 max(VecI32 a, VecI32 b) { return {_mm256_max_epi32(a.raw, b.raw)}; }
SIMDFORMER_INLINE int32_t reduce_max(VecI32 a) {
  const __m128i s4 =
      _mm_max_epi32(_mm256_castsi256_si128(a.raw), _mm256_extracti128_si256(a.raw, 1));
  const __m128i s2 = _mm_max_epi32(s4, _mm_unpackhi_epi64(s4, s4));
  return _mm_cvtsi128_si32(_mm_max_epi32(s2, _mm_shuffle_epi32(s2, 1)));
}
// Lanes in [-32768, 32767], rounded to the nearest integer, ties to even: low[i] in the lower half
// of lane i, high[i] in its upper half. Lanes out of range, or NaN, give any number.
SIMDFORMER_INLINE VecI32 pair_s16(VecF32 low, VecF32 high) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_cvtps_epi32(high.raw), 16);
  return {_mm256_blend_epi16(_mm256_cvtps_epi32(low.raw), shifted, 0xAA)};
}
// Four vectors of lanes in [0, 255], rounded to the nearest integer, ties to even. Lanes out of
// range, or NaN, give any byte.
SIMDFORMER_INLINE void store_u8(const VecF32 (&a)[4], uint8_t* p) {
  // Packing works on 128-bit halves: 4 bytes of a[0], of a[1], ... of each.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i low =
      _mm256_packs_epi32(_mm256_cvtps_epi32(a[0].raw), _mm256_cvtps_epi32(a[1].raw));
  const __m256i high =
      _mm256_packs_epi32(_mm256_cvtps_epi32(a[2].raw), _mm256_cvtps_epi32(a[3].raw));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
}

// dst[j * ldd + i] = src[i * lds + j] for i, j in [0, kLanes).
// Three rounds: pairs of floats, pairs of doubles, 128-bit halves.
SIMDFORMER_INLINE void transpose_tile(const float* src, size_t lds, float* dst, size_t ldd) {
  __m256 r[8];
  __m256 t[8];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(src + i * lds);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 4; ++i) {
    _mm256_storeu_ps(dst + i * ldd, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(dst + (i + 4) * ldd, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

}  // namespace
}  // namespace simdformer

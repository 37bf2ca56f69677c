// SPDX-License-Identifier: Apache-2.0
// VecF32 on AVX-512 F/BW/DQ/VL: 16 lanes. Every vec_*.h has the same members with the same meaning.
#pragma once

#ifndef __clang__
// gcc 12 warns about the undefined operands inside its own AVX-512 intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd/macros.h"

namespace simdformer {
namespace {

struct VecF32 {
  static constexpr size_t kLanes = 16;
  static constexpr bool kHasLookup = true;
  static constexpr bool kHasLanes = false;
  using Mask = __mmask16;

  __m512 raw;

  static SIMDFORMER_INLINE Mask first(size_t n) {
    return static_cast<Mask>(_bzhi_u32(0xFFFFu, static_cast<unsigned>(n)));
  }

  static SIMDFORMER_INLINE VecF32 zero() { return {_mm512_setzero_ps()}; }
  static SIMDFORMER_INLINE VecF32 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static SIMDFORMER_INLINE VecF32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  // Reads p[0, n), n <= kLanes. The other lanes are 0.
  static SIMDFORMER_INLINE VecF32 load(const float* p, size_t n) {
    return {_mm512_maskz_loadu_ps(first(n), p)};
  }
  // p[0, kLanes) in bfloat16, converted exactly.
  static SIMDFORMER_INLINE VecF32 load(const uint16_t* p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  SIMDFORMER_INLINE void store(float* p) const { _mm512_storeu_ps(p, raw); }
  SIMDFORMER_INLINE void store(float* p, size_t n) const {
    _mm512_mask_storeu_ps(p, first(n), raw);
  }

  friend SIMDFORMER_INLINE VecF32 operator+(VecF32 a, VecF32 b) {
    return {_mm512_add_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator-(VecF32 a, VecF32 b) {
    return {_mm512_sub_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator*(VecF32 a, VecF32 b) {
    return {_mm512_mul_ps(a.raw, b.raw)};
  }
  friend SIMDFORMER_INLINE VecF32 operator/(VecF32 a, VecF32 b) {
    return {_mm512_div_ps(a.raw, b.raw)};
  }
};

// a * b + c, rounded once.
SIMDFORMER_INLINE VecF32 fma(VecF32 a, VecF32 b, VecF32 c) {
  return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)};
}
// If either operand is NaN, max and min return the second one.
SIMDFORMER_INLINE VecF32 max(VecF32 a, VecF32 b) { return {_mm512_max_ps(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecF32 min(VecF32 a, VecF32 b) { return {_mm512_min_ps(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecF32 sqrt(VecF32 a) { return {_mm512_sqrt_ps(a.raw)}; }
SIMDFORMER_INLINE VecF32 abs(VecF32 a) { return {_mm512_abs_ps(a.raw)}; }
// To the nearest integer, ties to even.
SIMDFORMER_INLINE VecF32 round(VecF32 a) { return {_mm512_roundscale_ps(a.raw, 8)}; }
// magnitude with the sign of sign; magnitude >= 0.
SIMDFORMER_INLINE VecF32 copysign(VecF32 magnitude, VecF32 sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(magnitude.raw, _mm512_and_ps(sign.raw, bit))};
}
// x * 2^n for integral n. Subnormal results are rounded, not flushed.
SIMDFORMER_INLINE VecF32 scale_by_pow2(VecF32 x, VecF32 n) {
  return {_mm512_scalef_ps(x.raw, n.raw)};
}
SIMDFORMER_INLINE VecF32::Mask less(VecF32 a, VecF32 b) {
  return _mm512_cmp_ps_mask(a.raw, b.raw, _CMP_LT_OQ);
}
SIMDFORMER_INLINE VecF32::Mask is_nan(VecF32 a) {
  return _mm512_cmp_ps_mask(a.raw, a.raw, _CMP_UNORD_Q);
}
// Whether a lane is NaN.
SIMDFORMER_INLINE bool any_nan(VecF32 a) { return is_nan(a) != 0; }
// a where mask, else b.
SIMDFORMER_INLINE VecF32 select(VecF32::Mask mask, VecF32 a, VecF32 b) {
  return {_mm512_mask_blend_ps(mask, b.raw, a.raw)};
}
// a in the first n lanes, b in the rest.
SIMDFORMER_INLINE VecF32 select_first(size_t n, VecF32 a, VecF32 b) {
  return select(VecF32::first(n), a, b);
}

// table[i % 32] in every lane, where i is the lane's bits as an integer.
SIMDFORMER_INLINE VecF32 lookup(const float (&table)[32], VecF32 index) {
  return {_mm512_permutex2var_ps(_mm512_load_ps(table), _mm512_castps_si512(index.raw),
                                 _mm512_load_ps(table + 16))};
}

// The sum of the lanes in a fixed tree: halves are added until one lane is left.
SIMDFORMER_INLINE float reduce_add(VecF32 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.raw), _mm512_extractf32x8_ps(a.raw, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
// The largest lane. Lanes that are NaN may be ignored.
SIMDFORMER_INLINE float reduce_max(VecF32 a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.raw), _mm512_extractf32x8_ps(a.raw, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// The largest lane of each of four, with a third of the operations of four separate reductions.
SIMDFORMER_INLINE void reduce_max(const VecF32 (&a)[4], float (&largest)[4]) {
  const __m512 p01 =
      _mm512_max_ps(_mm512_unpacklo_ps(a[0].raw, a[1].raw), _mm512_unpackhi_ps(a[0].raw, a[1].raw));
  const __m512 p23 =
      _mm512_max_ps(_mm512_unpacklo_ps(a[2].raw, a[3].raw), _mm512_unpackhi_ps(a[2].raw, a[3].raw));
  const __m512 q =
      _mm512_max_ps(_mm512_shuffle_ps(p01, p23, 0x44), _mm512_shuffle_ps(p01, p23, 0xEE));
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(q), _mm512_extractf32x8_ps(q, 1));
  _mm_storeu_ps(largest, _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

// kLanes sums of integer products. dot_u8s8 and dot_s16 are in dot_avx512*.h, because they depend
// on VNNI.
struct VecI32 {
  static constexpr bool kHasFastS16 = true;

  __m512i raw;

  static SIMDFORMER_INLINE VecI32 zero() { return {_mm512_setzero_si512()}; }
  // Four bytes per lane.
  static SIMDFORMER_INLINE VecI32 load(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
  // p[0, 4) in every lane.
  static SIMDFORMER_INLINE VecI32 broadcast(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return {_mm512_set1_epi32(four)};
  }
};

SIMDFORMER_INLINE VecF32 to_float(VecI32 a) { return {_mm512_cvtepi32_ps(a.raw)}; }
// The same bits as another type.
SIMDFORMER_INLINE VecI32 as_ints(VecF32 a) { return {_mm512_castps_si512(a.raw)}; }
SIMDFORMER_INLINE VecF32 as_floats(VecI32 a) { return {_mm512_castsi512_ps(a.raw)}; }
SIMDFORMER_INLINE VecI32 operator-(VecI32 a, VecI32 b) { return {_mm512_sub_epi32(a.raw, b.raw)}; }
SIMDFORMER_INLINE VecI32 max(VecI32 a, VecI32 b) { return {_mm512_max_epi32(a.raw, b.raw)}; }
SIMDFORMER_INLINE int32_t reduce_max(VecI32 a) { return _mm512_reduce_max_epi32(a.raw); }
// Lanes in [-32768, 32767], rounded to the nearest integer, ties to even: low[i] in the lower half
// of lane i, high[i] in its upper half. Lanes out of range, or NaN, give any number.
SIMDFORMER_INLINE VecI32 pair_s16(VecF32 low, VecF32 high) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_cvtps_epi32(high.raw), 16);
  return {_mm512_mask_blend_epi16(0xAAAAAAAAu, _mm512_cvtps_epi32(low.raw), shifted)};
}
// Four vectors of lanes in [0, 255], rounded to the nearest integer, ties to even. Lanes out of
// range, or NaN, give any byte.
SIMDFORMER_INLINE void store_u8(const VecF32 (&a)[4], uint8_t* p) {
  // Packing works on 128-bit quarters: 4 bytes of a[0], of a[1], ... of each.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low =
      _mm512_packs_epi32(_mm512_cvtps_epi32(a[0].raw), _mm512_cvtps_epi32(a[1].raw));
  const __m512i high =
      _mm512_packs_epi32(_mm512_cvtps_epi32(a[2].raw), _mm512_cvtps_epi32(a[3].raw));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
}

// dst[j * ldd + i] = src[i * lds + j] for i, j in [0, kLanes).
// Four rounds: pairs of floats, pairs of doubles, 128-bit quarters, 256-bit halves.
SIMDFORMER_INLINE void transpose_tile(const float* src, size_t lds, float* dst, size_t ldd) {
  __m512 r[16];
  __m512 t[16];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(src + i * lds);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xDD);
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 8; ++i) {
    _mm512_storeu_ps(dst + i * ldd, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_ps(dst + (i + 8) * ldd, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD));
  }
}

}  // namespace
}  // namespace simdformer

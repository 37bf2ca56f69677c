// SPDX-License-Identifier: Apache-2.0
// VecF32 in the compiler's own vectors: 4 lanes, SSE2 on baseline x86-64. It uses no FMA
// instruction even if the architecture has one, so that its bits are the same everywhere. Every
// vec_*.h has the same members with the same meaning.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/macros.h"

namespace simdformer {
namespace {

typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));
typedef uint32_t U32x4 __attribute__((vector_size(16)));

struct VecF32 {
  static constexpr size_t kLanes = 4;
  static constexpr bool kHasLookup = false;
  static constexpr bool kHasLanes = false;
  using Mask = I32x4;

  F32x4 raw;

  static SIMDFORMER_INLINE Mask first(size_t n) {
    return I32x4{0, 1, 2, 3} < static_cast<int32_t>(n);
  }

  static SIMDFORMER_INLINE VecF32 zero() { return {F32x4{}}; }
  static SIMDFORMER_INLINE VecF32 broadcast(float x) { return {F32x4{x, x, x, x}}; }
  static SIMDFORMER_INLINE VecF32 load(const float* p) {
    VecF32 v;
    __builtin_memcpy(&v.raw, p, sizeof(v.raw));
    return v;
  }
  // Reads p[0, n), n <= kLanes. The other lanes are 0.
  static SIMDFORMER_INLINE VecF32 load(const float* p, size_t n) {
    VecF32 v = zero();
    for (size_t i = 0; i < n; ++i) v.raw[i] = p[i];
    return v;
  }
  // p[0, kLanes) in bfloat16, converted exactly.
  static SIMDFORMER_INLINE VecF32 load(const uint16_t* p) {
    const I32x4 bits{p[0], p[1], p[2], p[3]};
    VecF32 v;
    const I32x4 wide = bits << 16;
    __builtin_memcpy(&v.raw, &wide, sizeof(wide));
    return v;
  }
  SIMDFORMER_INLINE void store(float* p) const { __builtin_memcpy(p, &raw, sizeof(raw)); }
  SIMDFORMER_INLINE void store(float* p, size_t n) const {
    for (size_t i = 0; i < n; ++i) p[i] = raw[i];
  }

  friend SIMDFORMER_INLINE VecF32 operator+(VecF32 a, VecF32 b) { return {a.raw + b.raw}; }
  friend SIMDFORMER_INLINE VecF32 operator-(VecF32 a, VecF32 b) { return {a.raw - b.raw}; }
  friend SIMDFORMER_INLINE VecF32 operator*(VecF32 a, VecF32 b) { return {a.raw * b.raw}; }
  friend SIMDFORMER_INLINE VecF32 operator/(VecF32 a, VecF32 b) { return {a.raw / b.raw}; }
};

// a * b + c, rounded twice: without the instruction, fmaf() is a slow library call.
SIMDFORMER_INLINE VecF32 fma(VecF32 a, VecF32 b, VecF32 c) { return {a.raw * b.raw + c.raw}; }
// If either operand is NaN, max and min return the second one.
SIMDFORMER_INLINE VecF32 max(VecF32 a, VecF32 b) { return {a.raw > b.raw ? a.raw : b.raw}; }
SIMDFORMER_INLINE VecF32 min(VecF32 a, VecF32 b) { return {a.raw < b.raw ? a.raw : b.raw}; }
SIMDFORMER_INLINE VecF32 sqrt(VecF32 a) {
  VecF32 v;
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < 4; ++i) v.raw[i] = __builtin_sqrtf(a.raw[i]);
  return v;
}
SIMDFORMER_INLINE VecF32 abs(VecF32 a) {
  return {reinterpret_cast<F32x4>(reinterpret_cast<I32x4>(a.raw) & 0x7FFFFFFF)};
}
// magnitude with the sign of sign; magnitude >= 0.
SIMDFORMER_INLINE VecF32 copysign(VecF32 magnitude, VecF32 sign) {
  const I32x4 bit = reinterpret_cast<I32x4>(sign.raw) & INT32_MIN;
  return {reinterpret_cast<F32x4>(reinterpret_cast<I32x4>(magnitude.raw) | bit)};
}
// To the nearest integer, ties to even, for |a| < 2^22: after adding 1.5 * 2^23 there are no bits
// for a fraction.
SIMDFORMER_INLINE VecF32 round(VecF32 a) {
  const VecF32 magic = VecF32::broadcast(12582912.0f);
  return (a + magic) - magic;
}
// x * 2^n for integral n. Subnormal results are rounded, not flushed. 2^n may be out of the normal
// range, so it is applied as two factors.
SIMDFORMER_INLINE VecF32 scale_by_pow2(VecF32 x, VecF32 n) {
  const I32x4 whole = __builtin_convertvector(n.raw, I32x4);
  const I32x4 half = whole >> 1;
  const F32x4 lo = reinterpret_cast<F32x4>((half + 127) << 23);
  const F32x4 hi = reinterpret_cast<F32x4>((whole - half + 127) << 23);
  return {x.raw * hi * lo};
}
SIMDFORMER_INLINE VecF32::Mask less(VecF32 a, VecF32 b) { return a.raw < b.raw; }
SIMDFORMER_INLINE VecF32::Mask is_nan(VecF32 a) { return a.raw != a.raw; }
// Whether a lane is NaN.
SIMDFORMER_INLINE bool any_nan(VecF32 a) {
  const VecF32::Mask nan = is_nan(a);
  return (nan[0] | nan[1] | nan[2] | nan[3]) != 0;
}
// a where mask, else b.
SIMDFORMER_INLINE VecF32 select(VecF32::Mask mask, VecF32 a, VecF32 b) {
  return {mask ? a.raw : b.raw};
}
// a in the first n lanes, b in the rest.
SIMDFORMER_INLINE VecF32 select_first(size_t n, VecF32 a, VecF32 b) {
  return select(VecF32::first(n), a, b);
}

// The sum of the lanes in a fixed tree: halves are added until one lane is left.
SIMDFORMER_INLINE float reduce_add(VecF32 a) {
  return (a.raw[0] + a.raw[2]) + (a.raw[1] + a.raw[3]);
}
// The largest lane. Lanes that are NaN may be ignored.
SIMDFORMER_INLINE float reduce_max(VecF32 a) {
  const float even = a.raw[0] > a.raw[2] ? a.raw[0] : a.raw[2];
  const float odd = a.raw[1] > a.raw[3] ? a.raw[1] : a.raw[3];
  return even > odd ? even : odd;
}

// The largest lane of each of four.
SIMDFORMER_INLINE void reduce_max(const VecF32 (&a)[4], float (&largest)[4]) {
  for (size_t i = 0; i < 4; ++i) largest[i] = reduce_max(a[i]);
}

// kLanes sums of integer products.
struct VecI32 {
  static constexpr bool kHasFastS16 = true;

  I32x4 raw;

  static SIMDFORMER_INLINE VecI32 zero() { return {I32x4{}}; }
  // Four bytes per lane.
  static SIMDFORMER_INLINE VecI32 load(const int8_t* p) {
    VecI32 v;
    __builtin_memcpy(&v.raw, p, sizeof(v.raw));
    return v;
  }
  // p[0, 4) in every lane.
  static SIMDFORMER_INLINE VecI32 broadcast(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return {I32x4{four, four, four, four}};
  }
};

// acc + sum of a lane's four products of unsigned a and signed b, exact. Computed in float32, where
// the sum of four such products is exact (below 2^24), because SSE2 has no 32-bit integer
// multiplication.
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  F32x4 sum{};
  SIMDFORMER_UNROLL
  for (int32_t byte = 0; byte < 4; ++byte) {
    I32x4 x = (a.raw >> (8 * byte)) & 0xFF;
#if defined(__clang__) && defined(__x86_64__)
    // clang would convert it as an unsigned number, for which SSE2 has no instruction.
    asm("" : "+x"(x));
#endif
    const I32x4 y = (b.raw << (24 - 8 * byte)) >> 24;
    sum += __builtin_convertvector(x, F32x4) * __builtin_convertvector(y, F32x4);
  }
  return {acc.raw + __builtin_convertvector(sum, I32x4)};
}
SIMDFORMER_INLINE VecF32 to_float(VecI32 a) { return {__builtin_convertvector(a.raw, F32x4)}; }
// The same bits as another type.
SIMDFORMER_INLINE VecI32 as_ints(VecF32 a) { return {reinterpret_cast<I32x4>(a.raw)}; }
SIMDFORMER_INLINE VecF32 as_floats(VecI32 a) { return {reinterpret_cast<F32x4>(a.raw)}; }
// Wraps around, as the instructions do, because unused lanes may contain anything.
SIMDFORMER_INLINE VecI32 operator-(VecI32 a, VecI32 b) {
  return {reinterpret_cast<I32x4>(reinterpret_cast<U32x4>(a.raw) - reinterpret_cast<U32x4>(b.raw))};
}
SIMDFORMER_INLINE VecI32 max(VecI32 a, VecI32 b) { return {a.raw > b.raw ? a.raw : b.raw}; }
SIMDFORMER_INLINE int32_t reduce_max(VecI32 a) {
  const int32_t even = a.raw[0] > a.raw[2] ? a.raw[0] : a.raw[2];
  const int32_t odd = a.raw[1] > a.raw[3] ? a.raw[1] : a.raw[3];
  return even > odd ? even : odd;
}
// Lanes in [-32768, 32767], rounded to the nearest integer, ties to even: low[i] in the lower half
// of lane i, high[i] in its upper half. Lanes out of range, or NaN, give any number.
SIMDFORMER_INLINE VecI32 pair_s16(VecF32 low, VecF32 high) {
  const I32x4 l = __builtin_convertvector(round(low).raw, I32x4);
  const I32x4 h = __builtin_convertvector(round(high).raw, I32x4);
  return {(l & 0xFFFF) | (h << 16)};
}
// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  const I32x4 low = ((a.raw << 16) >> 16) * ((b.raw << 16) >> 16);
  return {acc.raw + low + (a.raw >> 16) * (b.raw >> 16)};
}
// Four vectors of lanes in [0, 255], rounded to the nearest integer, ties to even. Lanes out of
// range, or NaN, give any byte.
SIMDFORMER_INLINE void store_u8(const VecF32 (&a)[4], uint8_t* p) {
  for (size_t j = 0; j < 4; ++j) {
    const VecF32 v = min(VecF32::broadcast(255.0f), max(a[j], VecF32::zero()));
    const I32x4 whole = __builtin_convertvector(round(v).raw, I32x4);
    for (size_t i = 0; i < 4; ++i) p[4 * j + i] = static_cast<uint8_t>(whole[i]);
  }
}

// dst[j * ldd + i] = src[i * lds + j] for i, j in [0, kLanes).
SIMDFORMER_INLINE void transpose_tile(const float* src, size_t lds, float* dst, size_t ldd) {
  for (size_t i = 0; i < 4; ++i) {
    for (size_t j = 0; j < 4; ++j) dst[j * ldd + i] = src[i * lds + j];
  }
}

}  // namespace
}  // namespace simdformer

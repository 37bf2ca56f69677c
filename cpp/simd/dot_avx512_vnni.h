// SPDX-License-Identifier: Apache-2.0
// dot_u8s8 and dot_s16 for AVX-512 VNNI.
#pragma once

#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

// acc + sum of a lane's four products of unsigned a and signed b, exact. In assembly, because gcc
// 12 copies every accumulator twice around the intrinsic.
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc.raw) : "v"(a.raw), "v"(b.raw));
  return acc;
}

// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(acc.raw) : "v"(a.raw), "v"(b.raw));
  return acc;
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// dot_u8s8 and dot_s16 for AVX2 with AVX-VNNI.
#pragma once

#include "simd/vec_avx2.h"

namespace simdformer {
namespace {

// acc + sum of a lane's four products of unsigned a and signed b, exact. In assembly as in
// dot_avx512_vnni.h; {vex} because the same instruction exists in AVX-512.
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.raw) : "x"(a.raw), "x"(b.raw));
  return acc;
}

// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc.raw) : "x"(a.raw), "x"(b.raw));
  return acc;
}

}  // namespace
}  // namespace simdformer

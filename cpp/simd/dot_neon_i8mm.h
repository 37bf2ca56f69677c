// SPDX-License-Identifier: Apache-2.0
// Products of bytes with NEON's matrix multiplication (FEAT_I8MM).
#pragma once

#include "simd/vec_neon.h"

namespace simdformer {
namespace {

constexpr size_t kDotOps = 16;  // per lane: products and sums

// acc + a b^T of the unsigned bytes of a: (2, 8) and b: (2, 8), exact. acc: (2, 2).
SIMDFORMER_INLINE VecI32 dot_u8(VecI32 acc, VecI32 a, VecI32 b) {
  return {vreinterpretq_s32_u32(vmmlaq_u32(
      vreinterpretq_u32_s32(acc.raw), vreinterpretq_u8_s32(a.raw), vreinterpretq_u8_s32(b.raw)))};
}

}  // namespace
}  // namespace simdformer

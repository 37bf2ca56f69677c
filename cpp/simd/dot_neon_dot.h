// SPDX-License-Identifier: Apache-2.0
// Products of bytes with NEON's dot product (FEAT_DotProd).
#pragma once

#include "simd/vec_neon.h"

namespace simdformer {
namespace {

constexpr size_t kDotOps = 8;  // per lane: products and sums

// acc + the sum of each lane's four products of the unsigned bytes of a and b, exact.
SIMDFORMER_INLINE VecI32 dot_u8(VecI32 acc, VecI32 a, VecI32 b) {
  return {vreinterpretq_s32_u32(vdotq_u32(
      vreinterpretq_u32_s32(acc.raw), vreinterpretq_u8_s32(a.raw), vreinterpretq_u8_s32(b.raw)))};
}
// The same with the four bytes of lane Lane of a.
template <int Lane>
SIMDFORMER_INLINE VecI32 dot_u8_lane(VecI32 acc, VecI32 a, VecI32 b) {
  return {vreinterpretq_s32_u32(vdotq_laneq_u32(vreinterpretq_u32_s32(acc.raw),
                                                vreinterpretq_u8_s32(b.raw),
                                                vreinterpretq_u8_s32(a.raw), Lane))};
}

}  // namespace
}  // namespace simdformer

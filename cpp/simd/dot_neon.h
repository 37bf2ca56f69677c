// SPDX-License-Identifier: Apache-2.0
// Products of bytes on baseline NEON.
#pragma once

#include "simd/vec_neon.h"

namespace simdformer {
namespace {

constexpr size_t kDotOps = 8;  // per lane: products and sums

// acc + products of the unsigned bytes of a and b, four in each lane, exact: one product fits into
// 16 bits, but the sum of two does not.
SIMDFORMER_INLINE VecI32 dot_u8(VecI32 acc, VecI32 a, VecI32 b) {
  const uint8x16_t x = vreinterpretq_u8_s32(a.raw);
  const uint8x16_t y = vreinterpretq_u8_s32(b.raw);
  uint32x4_t sum = vreinterpretq_u32_s32(acc.raw);
  sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(x), vget_low_u8(y)));
  sum = vpadalq_u16(sum, vmull_high_u8(x, y));
  return {vreinterpretq_s32_u32(sum)};
}

}  // namespace
}  // namespace simdformer

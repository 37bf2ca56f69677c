// SPDX-License-Identifier: Apache-2.0
// dot_u8s8 and dot_s16 for AVX-512 without VNNI.
#pragma once

#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

// acc + sum of a lane's four products of unsigned a and signed b, exact: vpmaddwd on bytes widened
// to 16 bits, even and odd ones separately. (vpmaddubsw takes bytes but saturates at 255 * 127 *
// 2.)
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  const __m512i a_even = _mm512_and_si512(a.raw, _mm512_set1_epi16(0xFF));
  const __m512i a_odd = _mm512_srli_epi16(a.raw, 8);
  const __m512i b_even = _mm512_srai_epi16(_mm512_slli_epi16(b.raw, 8), 8);
  const __m512i b_odd = _mm512_srai_epi16(b.raw, 8);
  const __m512i sum =
      _mm512_add_epi32(_mm512_madd_epi16(a_even, b_even), _mm512_madd_epi16(a_odd, b_odd));
  return {_mm512_add_epi32(acc.raw, sum)};
}

// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  return {_mm512_add_epi32(acc.raw, _mm512_madd_epi16(a.raw, b.raw))};
}

}  // namespace
}  // namespace simdformer

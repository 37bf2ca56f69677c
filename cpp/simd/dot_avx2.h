// SPDX-License-Identifier: Apache-2.0
// dot_u8s8 and dot_s16 for AVX2 without VNNI.
#pragma once

#include "simd/vec_avx2.h"

namespace simdformer {
namespace {

// acc + sum of a lane's four products of unsigned a and signed b, exact: vpmaddwd on bytes widened
// to 16 bits, even and odd ones apart. (vpmaddubsw takes bytes but saturates at 255 * 127 * 2.)
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  const __m256i a_even = _mm256_and_si256(a.raw, _mm256_set1_epi16(0xFF));
  const __m256i a_odd = _mm256_srli_epi16(a.raw, 8);
  const __m256i b_even = _mm256_srai_epi16(_mm256_slli_epi16(b.raw, 8), 8);
  const __m256i b_odd = _mm256_srai_epi16(b.raw, 8);
  const __m256i sum =
      _mm256_add_epi32(_mm256_madd_epi16(a_even, b_even), _mm256_madd_epi16(a_odd, b_odd));
  return {_mm256_add_epi32(acc.raw, sum)};
}

// acc + the sum of a lane's two products of s16, exact if it fits.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  return {_mm256_add_epi32(acc.raw, _mm256_madd_epi16(a.raw, b.raw))};
}

}  // namespace
}  // namespace simdformer

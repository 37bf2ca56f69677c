// SPDX-License-Identifier: Apache-2.0
// dot_u8s8, dot_split, dot_bounded and dot_s16 for AVX2 without VNNI.
#pragma once

#include "simd/vec_avx2.h"

namespace simdformer {
namespace {

// acc + sum of a lane's four products of unsigned a and signed b, exact: vpmaddwd on bytes widened
// to 16 bits, even and odd ones separately. (vpmaddubsw takes bytes but saturates at 255 * 127 *
// 2.)
SIMDFORMER_INLINE VecI32 dot_u8s8(VecI32 acc, VecI32 a, VecI32 b) {
  const __m256i a_even = _mm256_and_si256(a.raw, _mm256_set1_epi16(0xFF));
  const __m256i a_odd = _mm256_srli_epi16(a.raw, 8);
  const __m256i b_even = _mm256_srai_epi16(_mm256_slli_epi16(b.raw, 8), 8);
  const __m256i b_odd = _mm256_srai_epi16(b.raw, 8);
  const __m256i sum =
      _mm256_add_epi32(_mm256_madd_epi16(a_even, b_even), _mm256_madd_epi16(a_odd, b_odd));
  return {_mm256_add_epi32(acc.raw, sum)};
}

// Weights w in the form that dot_split needs: |w|, and the bits 0x7F where w < 0, else 0x80.
struct SplitBytes {
  VecI32 magnitude;
  VecI32 flips;
};

SIMDFORMER_INLINE SplitBytes split_signs(VecI32 w) {
  const __m256i negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w.raw);
  return {{_mm256_abs_epi8(w.raw)},
          {_mm256_xor_si256(negative, _mm256_set1_epi8(static_cast<char>(0x80)))}};
}

// acc + the sum of a lane's four products of flips and w, exact, because magnitudes are at most
// 2^7.
SIMDFORMER_INLINE VecI32 add_starts(VecI32 acc, VecI32 flips, VecI32 w) {
  const __m256i pairs = _mm256_maddubs_epi16(flips.raw, w.raw);
  return {_mm256_add_epi32(acc.raw, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}

// acc + the sum of a lane's four products of unsigned a - flips and w, exact. flips: the bits of 32
// bytes. In assembly, because gcc 12 copies every accumulator and spills some.
SIMDFORMER_INLINE VecI32 dot_split(VecI32 acc, VecI32 a, VecI32 magnitude, const int8_t* flips) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i product;
  asm("vpxor %[flips], %[a], %[product]\n\t"
      "vpmaddubsw %[product], %[magnitude], %[product]\n\t"
      "vpmaddwd %[ones], %[product], %[product]\n\t"
      "vpaddd %[product], %[acc], %[acc]"
      : [acc] "+x"(acc.raw), [product] "=&x"(product)
      : [a] "x"(a.raw), [magnitude] "x"(magnitude.raw), [ones] "x"(ones),
        [flips] "m"(*reinterpret_cast<const __m256i_u*>(flips)));
  return acc;
}

// acc + the sum of a lane's four products of unsigned a and signed w, exact if the sum of the first
// two and of the last two fits s16. In assembly, because gcc 12 loads w into a register first.
SIMDFORMER_INLINE VecI32 dot_bounded(VecI32 acc, VecI32 a, const int8_t* w) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i product;
  asm("vpmaddubsw %[w], %[a], %[product]\n\t"
      "vpmaddwd %[ones], %[product], %[product]\n\t"
      "vpaddd %[product], %[acc], %[acc]"
      : [acc] "+x"(acc.raw), [product] "=&x"(product)
      : [a] "x"(a.raw), [ones] "x"(ones), [w] "m"(*reinterpret_cast<const __m256i_u*>(w)));
  return acc;
}

// acc + the sum of a lane's two products of s16, exact if it does not overflow.
SIMDFORMER_INLINE VecI32 dot_s16(VecI32 acc, VecI32 a, VecI32 b) {
  return {_mm256_add_epi32(acc.raw, _mm256_madd_epi16(a.raw, b.raw))};
}

}  // namespace
}  // namespace simdformer

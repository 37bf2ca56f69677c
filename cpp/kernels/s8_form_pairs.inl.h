// SPDX-License-Identifier: Apache-2.0
// S8Form of a level that multiplies 2 x 8 codes by 2 x 8 weights: pairs of rows and of columns.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

struct S8Form {
  static constexpr size_t kPiece = 8;
  static constexpr size_t kTogether = 2;
  static constexpr size_t kRowBytes = kS8Group + 16;  // the codes, then an initial value

  static constexpr size_t size(size_t width) { return kS8Group * width; }

  SIMDFORMER_INLINE S8Panel of(const S8Panel& w, size_t) { return w; }

  // acc = the integer sums of one group.
  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                          const int8_t* SIMDFORMER_RESTRICT w,
                                          VecI32 (&acc)[MR][NV]) {
    constexpr size_t kRowPairs = (MR + 1) / 2;
    constexpr size_t kColumnPairs = NV * kLanes / 2;
    constexpr size_t kPairBytes = 2 * kRowBytes;
    VecI32 sum[kRowPairs][kColumnPairs];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < kRowPairs; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < kColumnPairs; ++j) {
        sum[i][j] = VecI32::load(q + i * kPairBytes + 2 * kS8Group);
      }
    }
    for (size_t p = 0; p < kS8Group; p += kPiece, w += kPiece * NV * kLanes) {
      VecI32 a[kRowPairs];
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < kRowPairs; ++i) a[i] = VecI32::load(q + i * kPairBytes + 2 * p);
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < kColumnPairs; ++j) {
        const VecI32 wv = VecI32::load(w + j * 2 * kPiece);
        SIMDFORMER_UNROLL
        for (size_t i = 0; i < kRowPairs; ++i) sum[i][j] = dot_u8(sum[i][j], a[i], wv);
      }
    }
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) {
        const VecI32 left = sum[i / 2][2 * j];
        const VecI32 right = sum[i / 2][2 * j + 1];
        acc[i][j] = i % 2 ? high_halves(left, right) : low_halves(left, right);
      }
    }
  }
};

}  // namespace
}  // namespace simdformer

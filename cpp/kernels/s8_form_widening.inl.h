// SPDX-License-Identifier: Apache-2.0
// S8Form of a level that widens products: 16 codes of a row times 16 weights of a column. Their
// sums stay in four separate lanes until the group is done.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

struct S8Form {
  static constexpr size_t kPiece = 16;
  static constexpr size_t kTogether = 1;
  static constexpr size_t kRowBytes = kS8Group + 16;  // the codes, then an initial value

  static constexpr size_t size(size_t width) { return kS8Group * width; }

  SIMDFORMER_INLINE S8Panel of(const S8Panel& w, size_t) { return w; }

  // acc = the integer sums of one group, for the four columns starting at w.
  template <size_t MR>
  static SIMDFORMER_INLINE void sum_columns(const uint8_t* SIMDFORMER_RESTRICT q,
                                            const int8_t* SIMDFORMER_RESTRICT w, size_t step,
                                            VecI32 (&acc)[MR]) {
    VecI32 sum[MR][kLanes];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t c = 0; c < kLanes; ++c) sum[i][c] = VecI32::zero();
    }
    for (size_t p = 0; p < kS8Group; p += kPiece, w += step) {
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) {
        const VecI32 av = VecI32::load(q + i * kRowBytes + p);
        SIMDFORMER_UNROLL
        for (size_t c = 0; c < kLanes; ++c) {
          sum[i][c] = dot_u8(sum[i][c], av, VecI32::load(w + c * kPiece));
        }
      }
    }
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      acc[i] = VecI32::load(q + i * kRowBytes + kS8Group) +
               sum_lanes(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    }
  }

  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* q, const int8_t* w,
                                          VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      VecI32 column[MR];
      sum_columns(q, w + j * kLanes * kPiece, NV * kLanes * kPiece, column);
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) acc[i][j] = column[i];
    }
  }
};

}  // namespace
}  // namespace simdformer

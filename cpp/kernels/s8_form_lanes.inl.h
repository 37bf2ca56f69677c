// SPDX-License-Identifier: Apache-2.0
// S8Form of a level with dot products that use four codes of one lane: 16 codes of each row stay in
// a register for four steps of a panel.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

struct S8Form {
  static constexpr size_t kPiece = 4;
  static constexpr size_t kTogether = 1;
  static constexpr size_t kRowBytes = kS8Group + 16;  // the codes, then an initial value

  static constexpr size_t size(size_t width) { return kS8Group * width; }

  SIMDFORMER_INLINE S8Panel of(const S8Panel& w, size_t) { return w; }

  // Four codes of each row.
  template <int Lane, size_t MR, size_t NV>
  static SIMDFORMER_INLINE void add_step(const VecI32 (&a)[MR], const int8_t* w,
                                         VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      const VecI32 wv = VecI32::load(w + (Lane * NV + j) * kLanes * kPiece);
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) acc[i][j] = dot_u8_lane<Lane>(acc[i][j], a[i], wv);
    }
  }

  // acc = the integer sums of one group.
  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                          const int8_t* SIMDFORMER_RESTRICT w,
                                          VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) {
        acc[i][j] = VecI32::load(q + i * kRowBytes + kS8Group);
      }
    }
    for (size_t p = 0; p < kS8Group; p += 16, w += 16 * NV * kLanes) {
      VecI32 a[MR];
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) a[i] = VecI32::load(q + i * kRowBytes + p);
      add_step<0>(a, w, acc);
      add_step<1>(a, w, acc);
      add_step<2>(a, w, acc);
      add_step<3>(a, w, acc);
    }
  }
};

}  // namespace
}  // namespace simdformer

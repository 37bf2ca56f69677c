// SPDX-License-Identifier: Apache-2.0
// Products of s16 with sums in int32, for attention_s16.inl.h. A 32-bit lane contains two numbers
// of each operand, so one instruction does the work of two FMAs.
#pragma once

#include "kernels/gemm.inl.h"

namespace simdformer {
namespace {

// The sums of one tile. a: (rows, k), w: a panel, both in pairs.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void sum_pairs(size_t k, const float* SIMDFORMER_RESTRICT a, size_t lda,
                                 const float* SIMDFORMER_RESTRICT w, VecI32 (&acc)[MR][NV]) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) acc[i][j] = VecI32::zero();
  }
  for (size_t p = 0; p < k; ++p, ++a, w += NV * kLanes) {
    VecI32 wv[NV];
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) wv[j] = as_ints(VecF32::load(w + j * kLanes));
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      const VecI32 av = as_ints(VecF32::broadcast(a[i * lda]));
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) acc[i][j] = dot_s16(acc[i][j], av, wv[j]);
    }
  }
}

// How the sums of a tile are stored.
enum class SumsS16 {
  kInts,   // without conversion
  kFirst,  // converted to float32
  kAdd,    // converted to float32 and added
};

template <size_t MR, size_t NV>
SIMDFORMER_NOINLINE void micro_kernel_s16(size_t k, const float* a, size_t lda, const float* w,
                                          SumsS16 sums, float* c, size_t ldc) {
  VecI32 acc[MR][NV];
  sum_pairs(k, a, lda, w, acc);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      float* to = c + i * ldc + j * kLanes;
      if (sums == SumsS16::kInts) {
        as_floats(acc[i][j]).store(to);
      } else {
        const VecF32 before = sums == SumsS16::kAdd ? VecF32::load(to) : VecF32::zero();
        (before + to_float(acc[i][j])).store(to);
      }
    }
  }
}

// c[i, j] = sum_p a[i, p] . w[j, p] over pairs p in [k_begin, k_begin + k), stored as `sums` says.
// a: (m, k), starting with pair k_begin; w: panels as packed by pack_weight from (n, packed_k)
// pairs; c: (m, n), whole vectors are written.
struct GemmS16Args {
  size_t m = 0;
  size_t n = 0;
  size_t k = 0;
  const float* a = nullptr;
  size_t lda = 0;
  const float* w = nullptr;
  size_t packed_k = 0;
  size_t k_begin = 0;
  SumsS16 sums = SumsS16::kInts;
  float* c = nullptr;
  size_t ldc = 0;
};

SIMDFORMER_INLINE void gemm_s16(const GemmS16Args& g) {
  const Walk walk = plan_walk(g.m, g.k, kTileRows);
  for (size_t column = 0; column < g.n; column += kNR) {
    const size_t vectors = panel_vectors(g.n, column);
    const float* w = g.w + column * g.packed_k + g.k_begin * vectors * kLanes;
    for (size_t strip = 0; strip < walk.strips; ++strip) {
      const size_t row = walk.begin(strip);
      with_tile_size<kTileRows, kTileVectors>(
          walk.begin(strip + 1) - row, vectors, [&]<size_t MR, size_t NV>() {
            micro_kernel_s16<MR, NV>(g.k, g.a + row * g.lda, g.lda, w, g.sums,
                                     g.c + row * g.ldc + column, g.ldc);
          });
    }
  }
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// A register tile of the GEMM: its sums, their initial values, and how they are stored.
#pragma once

#include "simd/macros.h"

namespace simdformer {
namespace {

// One register tile: its place in c, and the operations after its sums are complete.
struct Tile {
  float* c;
  size_t ldc;
  size_t width;           // valid columns, <= NV * kLanes
  size_t tail;            // valid lanes of the last vector, in [1, kLanes]
  const float* bias;      // at the tile's first column, or null
  const float* residual;  // at the tile's first element, or null
  size_t ldr;
  bool accumulate;
  const void* next_panel = nullptr;  // prefetched into L2 meanwhile, one step of k
  size_t next_interval = 0;          // every next_interval steps
};

// Whole: the tile has no columns beyond n, so plain loads and stores are used. (vmaskmovps stores
// are microcoded on AMD, and the generic level would use single lanes.)
template <size_t MR, size_t NV, bool Whole>
SIMDFORMER_INLINE void load_tile(VecF32 (&acc)[MR][NV], const Tile& tile) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      const float* c = tile.c + i * tile.ldc + j * kLanes;
      acc[i][j] = Whole || j + 1 < NV ? VecF32::load(c) : VecF32::load(c, tile.tail);
    }
  }
}

// acc += the present content of c.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_tile(VecF32 (&acc)[MR][NV], const Tile& tile) {
  VecF32 c[MR][NV];
  tile.tail == kLanes ? load_tile<MR, NV, true>(c, tile) : load_tile<MR, NV, false>(c, tile);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) acc[i][j] = acc[i][j] + c[i][j];
  }
}

// The initial values of the tile's sums.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void start_tile(VecF32 (&acc)[MR][NV], const Tile& tile) {
  if (tile.accumulate) {
    tile.tail == kLanes ? load_tile<MR, NV, true>(acc, tile) : load_tile<MR, NV, false>(acc, tile);
    return;
  }
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) acc[i][j] = VecF32::zero();
  }
}

template <size_t MR, size_t NV, bool Whole>
SIMDFORMER_INLINE void store_tile(const VecF32 (&acc)[MR][NV], const Tile& tile) {
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) {
    const bool whole = Whole || j + 1 < NV;
    const size_t column = j * kLanes;
    const auto load = [&](const float* p) {
      return whole ? VecF32::load(p) : VecF32::load(p, tile.tail);
    };
    const VecF32 bias = tile.bias ? load(tile.bias + column) : VecF32::zero();
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      VecF32 sum = tile.bias ? acc[i][j] + bias : acc[i][j];
      if (tile.residual) sum = sum + load(tile.residual + i * tile.ldr + column);
      float* c = tile.c + i * tile.ldc + column;
      whole ? sum.store(c) : sum.store(c, tile.tail);
    }
  }
}

// Whole tiles without bias and residual, as in attention, are stored directly.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void store_sums(const VecF32 (&acc)[MR][NV], const Tile& tile) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) acc[i][j].store(tile.c + i * tile.ldc + j * kLanes);
  }
}

template <size_t MR, size_t NV>
SIMDFORMER_INLINE void store_tile(const VecF32 (&acc)[MR][NV], const Tile& tile) {
  if (tile.tail == kLanes && !tile.bias && !tile.residual) return store_sums(acc, tile);
  tile.tail == kLanes ? store_tile<MR, NV, true>(acc, tile) : store_tile<MR, NV, false>(acc, tile);
}

constexpr int kIntoL1 = 3;
constexpr int kIntoL2 = 2;

// NV vectors of a panel, from one or several steps.
template <size_t NV, int Level, typename Weight>
SIMDFORMER_INLINE void prefetch_step(const Weight* p) {
  constexpr size_t kLine = 64 / sizeof(Weight);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < NV * kLanes; i += kLine) __builtin_prefetch(p + i, 0, Level);
}

// A panel does not fit into L1, so its lines are prefetched this number of steps ahead: FMAs that
// were issued for a load which misses are issued again. Granite Rapids, AVX-512: 86% to 94% of peak
// with the panel in L2; 4, 8, 12 and 16 steps are equal within noise. Zen 5: 16 steps are 3% faster
// than 8 at 14 rows, and 1% at 128. Zen 4: no gain.
constexpr size_t kStepsAhead = 16;

// Step Lane of w times lane Lane of each row of A.
template <size_t Lane, size_t MR, size_t NV, typename Weight>
SIMDFORMER_INLINE void add_lane(const VecF32 (&av)[MR], const Weight* SIMDFORMER_RESTRICT w,
                                VecF32 (&acc)[MR][NV]) {
  VecF32 wv[NV];
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) wv[j] = VecF32::load(w + (Lane * NV + j) * kLanes);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) acc[i][j] = fma_lane<Lane>(av[i], wv[j], acc[i][j]);
  }
}

// The hot loop of levels with lanes: kLanes steps of k at a time, with a vector of each row of A.
// The remaining steps use one lane each.
template <size_t MR, size_t NV, typename Weight>
SIMDFORMER_INLINE void add_by_lanes(size_t steps, const float* SIMDFORMER_RESTRICT a, size_t lda,
                                    const Weight* SIMDFORMER_RESTRICT w, VecF32 (&acc)[MR][NV]) {
  static_assert(kLanes == 4 || !VecF32::kHasLanes);
  size_t p = 0;
  for (; p + kLanes <= steps; p += kLanes, a += kLanes, w += kLanes * NV * kLanes) {
    prefetch_step<kLanes * NV, kIntoL1>(w + kStepsAhead * NV * kLanes);
    VecF32 av[MR];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) av[i] = VecF32::load(a + i * lda);
    add_lane<0>(av, w, acc);
    add_lane<1>(av, w, acc);
    add_lane<2>(av, w, acc);
    add_lane<3>(av, w, acc);
  }
  for (; p < steps; ++p, ++a, w += NV * kLanes) {
    VecF32 av[MR];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) av[i] = VecF32::broadcast(a[i * lda]);
    add_lane<0>(av, w, acc);
  }
}

template <size_t MR, size_t NV, typename Weight>
SIMDFORMER_INLINE void multiply_by_lanes(size_t k, const float* a, size_t lda, const Weight* w,
                                         const Tile& tile) {
  VecF32 acc[MR][NV];
  start_tile(acc, tile);
  const Weight* next = static_cast<const Weight*>(tile.next_panel);
  for (size_t left = k; left > 0; next += kLanes * NV * kLanes) {
    prefetch_step<kLanes * NV, kIntoL2>(next);
    const size_t steps = min_size(left, kLanes * tile.next_interval);
    add_by_lanes(steps, a, lda, w, acc);
    a += steps;
    w += steps * NV * kLanes;
    left -= steps;
  }
  store_tile(acc, tile);
}

// The hot loop: MR x NV accumulators, and NV loads of W and MR broadcasts of A per step of k. It is
// a function of its own so that all registers are available for the tile. gcc 12 copies
// accumulators if it is unrolled by hand (94% falls to 89%). Weight: float, or bfloat16 in
// uint16_t, which VecF32::load widens.
template <size_t MR, size_t NV, typename Weight>
SIMDFORMER_NOINLINE void micro_kernel(size_t k, const float* SIMDFORMER_RESTRICT a, size_t lda,
                                      const Weight* SIMDFORMER_RESTRICT w, const Tile& tile) {
  if constexpr (VecF32::kHasLanes) return multiply_by_lanes<MR, NV>(k, a, lda, w, tile);
  VecF32 acc[MR][NV];
  start_tile(acc, tile);
  const Weight* next = static_cast<const Weight*>(tile.next_panel);
  for (size_t left = k; left > 0; next += NV * kLanes) {
    prefetch_step<NV, kIntoL2>(next);
    const size_t steps = min_size(left, tile.next_interval);
    left -= steps;
    for (size_t p = 0; p < steps; ++p, ++a, w += NV * kLanes) {
      prefetch_step<NV, kIntoL1>(w + kStepsAhead * NV * kLanes);
      VecF32 wv[NV];
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) wv[j] = VecF32::load(w + j * kLanes);
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) {
        const VecF32 av = VecF32::broadcast(a[i * lda]);
        SIMDFORMER_UNROLL
        for (size_t j = 0; j < NV; ++j) acc[i][j] = fma(av, wv[j], acc[i][j]);
      }
    }
  }
  store_tile(acc, tile);
}

// Calls run<rows, vectors>() for rows in [1, MR] and vectors in [1, NV].
template <size_t MR, size_t NV, typename Run>
SIMDFORMER_INLINE void with_tile_size(size_t rows, size_t vectors, const Run& run) {
  if constexpr (MR > 0 && NV > 0) {
    if (vectors != NV) return with_tile_size<MR, NV - 1>(rows, vectors, run);
    if (rows != MR) return with_tile_size<MR - 1, NV>(rows, vectors, run);
    run.template operator()<MR, NV>();
  }
}

}  // namespace
}  // namespace simdformer

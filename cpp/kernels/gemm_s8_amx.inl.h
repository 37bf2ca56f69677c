// SPDX-License-Identifier: Apache-2.0
// gemm_s8 on AMX: blocks of 32 x 32 sums in four tiles. Tiles cannot be scaled, so the integer sums
// of a few groups go through memory, and are scaled and added in AVX-512 as at every level. The two
// take turns: while tiles multiply, AVX-512 has one port of its two, and nothing is won by mixing
// them (a Xeon with AMX: scaling the block before meanwhile lost a fifth).
#pragma once

#include "kernels/blocks_amx.inl.h"
#include "kernels/gemm_s8.inl.h"
#include "kernels/probe.inl.h"

namespace simdformer {
namespace {

// Rows that share a sweep over the weights; 128 x 384 bytes of them stay in L2.
constexpr size_t kS8Rows = 128;
// Two steps of k make a group.
static_assert(kS8Group == 2 * kAmxBytes);
constexpr size_t kTileWeights = kAmxBytes * kLanes;

// W in panels of one vector, which is a tile wide: blocks of columns need not begin with a panel.
void pack_weight_s8(const PackS8Args& a) { pack_s8_panels(a, 1); }

// The second tile of A or W is loaded where it is first needed, so that loads lie between products.
template <size_t Rows, size_t Cols, typename Before>
SIMDFORMER_INLINE void multiply_step(const uint8_t* q, const int8_t* w, size_t panel_step,
                                     const Before& before) {
  for_each_sum<Rows, Cols>([&]<int I, int J>() {
    if constexpr (J == 0) load_amx_tile<4 + I>(q + I * kAmxRows * kS8Group, kS8Group);
    if constexpr (I == 0) load_amx_tile<6 + J>(w + J * panel_step, kAmxBytes);
    before.template operator()<I, J>();
    dot_tiles<2 * I + J, 4 + I, 6 + J>();
  });
}

// sums: (groups, 32, 32). A group's sums are stored where the next group's begin: sooner, the store
// would wait for them, and the products behind it with it (180 cycles a group in place of 128).
template <size_t Rows, size_t Cols>
SIMDFORMER_NOINLINE void sum_groups(size_t groups, const S8Rows& a, const int8_t* w,
                                    size_t panel_step, int32_t* sums) {
  const uint8_t* q = a.q;
  const auto store = [&]<int I, int J>() {
    store_amx_tile<2 * I + J>(sums + I * kAmxRows * kAmxBlock + J * kLanes, kSumsBytes);
  };
  for (size_t group = 0; group < groups; ++group) {
    multiply_step<Rows, Cols>(q, w, panel_step, [&]<int I, int J>() {
      if (group > 0) store.template operator()<I, J>();
      zero_tile<2 * I + J>();
    });
    multiply_step<Rows, Cols>(q + kAmxBytes, w + kTileWeights, panel_step, []<int, int>() {});
    if (group > 0) sums += kAmxBlock * kAmxBlock;
    q += a.capacity * kS8Group;
    w += 2 * kTileWeights;
  }
  for_each_sum<Rows, Cols>(store);
}

// MR rows of a tile's sums, group after group, into c.
template <size_t MR>
SIMDFORMER_NOINLINE void scale_sums(size_t groups, const int32_t* sums, const S8Rows& a,
                                    const S8Panel& w, const Tile& tile) {
  VecF32 sum[MR][1];
  start_tile(sum, tile);
  for (size_t group = 0; group < groups; ++group, sums += kAmxBlock * kAmxBlock) {
    VecI32 acc[MR][1];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      acc[i][0] = VecI32::load(reinterpret_cast<const int8_t*>(sums + i * kAmxBlock));
    }
    add_group(acc, group, a, w, sum);
  }
  add_outliers(a, w, sum);
  store_tile(sum, tile);
}

SIMDFORMER_INLINE S8Panel make_panel(const GemmArgs& g, const S8Weight& w, size_t vector) {
  const size_t column = vector * kLanes;
  const size_t groups = ceil_div(g.packed_k, kS8Group);
  const size_t first = g.k_begin / kS8Group;
  const size_t panel = column / kNR * kNR;  // outliers come in pack_weight's panels
  const size_t outlier_step = panel_vectors(g.n, panel) * kLanes;
  return {.packed = w.packed + (column * groups + first * kLanes) * kS8Group,
          .ranges = w.ranges + (column * groups + first * kLanes) * 2,
          .outliers = w.outlier_weight + panel * w.num_outliers + (column - panel) +
                      outliers_before(w.outliers, first) * outlier_step,
          .outlier_step = outlier_step};
}

// Vectors [vector, vector + Cols) of C for [row, row + rows), rows in [1, 32].
template <size_t Cols>
SIMDFORMER_INLINE void multiply_block(const GemmArgs& g, const S8Weight& weight, const S8Rows& a,
                                      size_t vector, size_t row, size_t rows) {
  const size_t groups = ceil_div(g.k, kS8Group);
  const size_t panel_step = ceil_div(g.packed_k, kS8Group) * kS8Group * kLanes;
  const int8_t* packed = make_panel(g, weight, vector).packed;
  alignas(64) int32_t sums[kS8Depth / kS8Group * kAmxBlock * kAmxBlock];
  rows > kAmxRows ? sum_groups<2, Cols>(groups, a, packed, panel_step, sums)
                  : sum_groups<1, Cols>(groups, a, packed, panel_step, sums);
  for (size_t j = 0; j < Cols; ++j) {
    const S8Panel w = make_panel(g, weight, vector + j);
    for (size_t first = 0; first < rows; first += kAmxRows) {
      const Tile tile = vector_tile(g, vector + j, row + first);
      with_tile_size<kAmxRows, 1>(min_size(kAmxRows, rows - first), 1, [&]<size_t MR, size_t NV>() {
        static_assert(NV == 1);
        scale_sums<MR>(groups, sums + first * kAmxBlock + j * kLanes, a.from(first), w, tile);
      });
    }
    finish_vector(g, vector + j, row, rows);
  }
}

// Quantised rows [row, row + rows) against every panel.
void gemm_s8_block(const GemmArgs& g, const S8Weight& w, const S8Rows& a, size_t row, size_t rows) {
  const size_t end = end_vector(g);
  for (size_t vector = begin_vector(g); vector < end; vector += 2) {
    for (size_t first = 0; first < rows; first += kAmxBlock) {
      const size_t count = min_size(kAmxBlock, rows - first);
      vector + 1 < end ? multiply_block<2>(g, w, a.from(first), vector, row + first, count)
                       : multiply_block<1>(g, w, a.from(first), vector, row + first, count);
    }
  }
}

// A last block of fewer rows multiplies what the buffer happens to hold behind them, and no sum of
// that is read.
void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  if (g.m == 0) return;
  configure_tiles(min_size(g.m, kAmxRows));
  for_each_s8_block<kS8Rows>(g, w.outliers,
                             [&](const GemmArgs& part, const S8Rows& a, size_t row, size_t rows) {
                               gemm_s8_block(part, w, a, row, rows);
                             });
  release_tiles();
}

constexpr size_t kProbeDotOps = 4 * kAmxRows * kLanes * kAmxBytes * 2;

float probe_dot(size_t iterations) {
  alignas(64) int32_t sums[kAmxRows * kLanes];
  configure_tiles(kAmxRows);
  for_each_sum<2, 2>([]<int I, int J>() { zero_tile<2 * I + J>(); });
  zero_tile<4>();
  zero_tile<5>();
  zero_tile<6>();
  zero_tile<7>();
  for (size_t n = 0; n < iterations; ++n) {
    for_each_sum<2, 2>([]<int I, int J>() { dot_tiles<2 * I + J, 4 + I, 6 + J>(); });
  }
  store_amx_tile<0>(sums, kAmxBytes);
  release_tiles();
  return static_cast<float>(sums[0]);
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// gemm_s8 on AMX: blocks of 32 x 32 sums in four tiles, in stages. The first stage computes the
// products of minima and outliers (start_sums_amx.inl.h), the others the products of one group
// each. Tiles cannot be scaled, so the sums of a stage go through memory. AVX-512 scales and adds
// them while the next stage multiplies; the last stage of a block overlaps with the first one of
// the next block. Products use one of AVX-512's two ports. Without overlap the time was 9-14%
// longer, and 30% longer beside a neighbor that used the core's tiles (all layers, 128 rows).
// Processing two whole blocks at a time gained nothing, because their sums do not fit into L1.
#pragma once

#include "kernels/probe.inl.h"
#include "kernels/scale_sums_amx.inl.h"

namespace simdformer {
namespace {

// Rows per sweep over the weights; 128 x 384 bytes of them stay in L2.
constexpr size_t kS8Rows = 128;
// A group has two steps of k.
static_assert(kS8Group == 2 * kAmxBytes);
constexpr size_t kTileWeights = kAmxBytes * kLanes;
constexpr size_t kGroupWeights = 2 * kTileWeights;
constexpr size_t kLine = 64;  // size of a cache line

// Panels of W have one vector, the width of a tile, because blocks of columns need not start at a
// panel of kNR columns.
constexpr size_t kS8PanelVectors = 1;

constexpr bool kS8Rotates = false;

constexpr S8Layout kS8Layout{.piece = 4, .flip = 0};

void pack_weight_s8(const PackS8Args& a) { pack_s8_panels<kS8Layout>(a, kS8PanelVectors); }

// The first stage of a block, overlapped with the rest of the last block. rows = 0: only the
// latter.
template <size_t Rows, size_t Cols>
SIMDFORMER_INLINE void start_block(const S8Block& b, S8Pipeline& p) {
  for_each_sum<2, 2>([&]<int I, int J>() {
    constexpr bool kHas = I < Rows && J < Cols;
    if constexpr (kHas && J == 0) load_amx_tile<4 + I>(b.start + I * kStartTile, kAmxBytes);
    if constexpr (kHas && I == 0) {
      load_amx_tile<6 + J>(b.columns->start + J * kStartTile, kAmxBytes);
    }
    if (p.last.has(I, J)) store_amx_tile<2 * I + J>(tile_of(p.sums, I, J), kSumsBytes);
    if constexpr (kHas) {
      zero_tile<2 * I + J>();
      dot_tiles_bf16<2 * I + J, 4 + I, 6 + J>();
    }
    if constexpr (J == 1) {
      finish_share(p, 2 * I);
      finish_share(p, 2 * I + 1);
    }
  });
  if (!p.last.columns) return;
  const S8Columns& columns = *p.last.columns;
  for (size_t j = 0; j < columns.count; ++j) {
    finish_vector(p.g, columns.vector + j, p.last.row, p.last.rows);
  }
}

// The second tile of A or W is loaded just before its first use, so that loads lie between
// products.
template <size_t Rows, size_t Cols, typename Before, typename After>
SIMDFORMER_INLINE void multiply_step(const uint8_t* q, const int8_t* w, size_t vector_size,
                                     const Before& before, const After& after) {
  for_each_sum<Rows, Cols>([&]<int I, int J>() {
    if constexpr (J == 0) load_amx_tile<4 + I>(q + I * kAmxRows * kAmxBytes, kAmxBytes);
    if constexpr (I == 0) load_amx_tile<6 + J>(w + J * vector_size, kAmxBytes);
    before.template operator()<I, J>();
    dot_tiles<2 * I + J, 4 + I, 6 + J>();
    after.template operator()<I, J>();
  });
}

// The stage of one group. The sums of the previous stage are stored just before this group's
// products replace them. An earlier store would wait for these sums, and so would the products
// after it. They are added in the second step, when the stores have completed.
template <size_t Rows, size_t Cols>
SIMDFORMER_INLINE void multiply_group(const S8Block& b, size_t group, S8Pipeline& p) {
  constexpr size_t kRows = kAmxRows / Cols;  // rows to add after each product
  const uint8_t* q = b.a.q + group * b.a.capacity * kS8Group;
  const int8_t* w = b.columns->w[0].packed + group * kGroupWeights;
  multiply_step<Rows, Cols>(
      q, w, p.vector_size,
      [&]<int I, int J>() {
        group == 0 ? store_amx_tile<2 * I + J>(tile_of(p.totals, I, J), kSumsBytes)
                   : store_amx_tile<2 * I + J>(tile_of(p.sums, I, J), kSumsBytes);
        zero_tile<2 * I + J>();
      },
      []<int, int>() {});
  multiply_step<Rows, Cols>(
      q + b.a.capacity * kAmxBytes, w + kTileWeights, p.vector_size, []<int, int>() {},
      [&]<int I, int J>() {
        constexpr size_t kBegin = (I * Cols + J) * kRows;
        if (group == 0) return;
        add_to_totals<Cols>(b, group - 1, kBegin, min_size(kBegin + kRows, b.rows), p);
      });
}

// Prefetches a block's share of the next columns' group.
SIMDFORMER_INLINE void prefetch_group(const S8Pipeline& p, size_t group) {
  const int8_t* w = p.next.packed + group * kGroupWeights;
  for (size_t i = 0; i < p.next.bytes; i += kLine) {
    __builtin_prefetch(w + i, 0, kIntoL2);
    __builtin_prefetch(w + p.vector_size + i, 0, kIntoL2);
  }
}

template <size_t Rows, size_t Cols>
SIMDFORMER_NOINLINE void multiply_block(const S8Block& b, S8Pipeline& p) {
  start_block<Rows, Cols>(b, p);
  prefetch_block(p.g, b.columns->vector, b.row, b.rows);
  for (size_t group = 0; group < p.groups; ++group) {
    prefetch_group(p, group);
    multiply_group<Rows, Cols>(b, group, p);
  }
  p.next.packed += p.next.bytes;
  p.last = b;
}

SIMDFORMER_INLINE S8Panel make_panel(const GemmArgs& g, const S8Weight& w, size_t vector) {
  const size_t column = vector * kLanes;
  const size_t groups = ceil_div(g.packed_k, kS8Group);
  const size_t first = g.k_begin / kS8Group;
  const size_t panel = column / kNR * kNR;  // outliers are in panels of pack_weight
  const size_t outlier_step = panel_vectors(g.n, panel) * kLanes;
  return {.packed = w.packed + (column * groups + first * kLanes) * kS8Group,
          .ranges = w.ranges + (column * groups + first * kLanes) * 2,
          .outliers = w.outlier_weight + panel * w.num_outliers + (column - panel) +
                      outliers_before(w.outliers, first) * outlier_step,
          .outlier_step = outlier_step};
}

// Prefetches the scales and outliers of the next two vectors into L2. Returns the part that the
// blocks will prefetch. Measured on all layers in turn: 2-5% faster at 128 rows, and from 5% slower
// to 16% faster (beside busy neighbors) at 14 rows.
SIMDFORMER_INLINE S8Next prefetch_columns(const GemmArgs& g, const S8Weight& weight,
                                          const S8Rows& a, size_t vector, size_t rows) {
  if (vector + 1 >= end_vector(g)) return {};
  const size_t ranges = ceil_div(g.k, kS8Group) * 2 * kLanes;
  for (size_t j = 0; j < 2; ++j) {
    const S8Panel w = make_panel(g, weight, vector + j);
    for (size_t i = 0; i < ranges; i += kLanes) __builtin_prefetch(w.ranges + i, 0, kIntoL2);
    for (size_t o = 0; o < a.num_outliers; ++o) {
      __builtin_prefetch(w.outliers + o * w.outlier_step, 0, kIntoL2);
    }
  }
  const size_t blocks = ceil_div(rows, kAmxBlock);
  return {make_panel(g, weight, vector).packed, round_up(kGroupWeights / blocks, kLine)};
}

SIMDFORMER_INLINE S8Columns make_columns(const GemmArgs& g, const S8Weight& weight, const S8Rows& a,
                                         size_t vector, uint16_t* start) {
  S8Columns columns{.vector = vector, .count = min_size(2, end_vector(g) - vector), .start = start};
  for (size_t j = 0; j < columns.count; ++j) {
    columns.w[j] = make_panel(g, weight, vector + j);
    pack_start_weights(ceil_div(g.k, kS8Group), a.num_outliers, columns.w[j],
                       start + j * kStartTile);
  }
  return columns;
}

// Quantized rows [row, row + rows) times every panel.
void gemm_s8_rows(const GemmArgs& g, const S8Weight& weight, const S8Rows& a, size_t row,
                  size_t rows) {
  alignas(64) uint16_t start_a[kS8Rows / kAmxRows * kStartTile];
  alignas(64) uint16_t start_w[2 * kStartTile] = {};
  S8Columns columns[2];  // of the last block and of the present one
  S8Pipeline p(g);
  pack_start_rows(p.groups, rows, a, start_a);
  for (size_t vector = begin_vector(g); vector < end_vector(g); vector += 2) {
    S8Columns& own = columns[vector / 2 % 2];
    own = make_columns(g, weight, a, vector, start_w);
    p.next = prefetch_columns(g, weight, a, vector + 2, rows);
    for (size_t first = 0; first < rows; first += kAmxBlock) {
      const S8Block b{.row = row + first,
                      .rows = min_size(kAmxBlock, rows - first),
                      .a = a.from(first),
                      .start = start_a + first / kAmxRows * kStartTile,
                      .columns = &own};
      const bool tall = b.rows > kAmxRows;
      const auto multiply = own.count == 2 ? (tall ? multiply_block<2, 2> : multiply_block<1, 2>)
                                           : (tall ? multiply_block<2, 1> : multiply_block<1, 1>);
      multiply(b, p);
    }
  }
  start_block<0, 0>({}, p);
}

// A last block with fewer rows also multiplies the old contents of the buffer after them. These
// sums are never read.
void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  if (g.m == 0) return;
  configure_tiles(min_size(g.m, kAmxRows));
  for_each_s8_block<kS8Rows, kAmxBytes>(
      g, w, [&](const GemmArgs& part, const S8Rows& a, size_t row, size_t rows) {
        gemm_s8_rows(part, w, a, row, rows);
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

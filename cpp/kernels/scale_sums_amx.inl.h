// SPDX-License-Identifier: Apache-2.0
// The part of gemm_s8_amx.inl.h that uses vectors: the blocks of a call, and their integer sums,
// which tiles have stored in memory, scaled and added in float32.
#pragma once

#include "kernels/start_sums_amx.inl.h"

namespace simdformer {
namespace {

// Vectors [vector, vector + count) of C, one or two, and their weights.
struct S8Columns {
  size_t vector = 0;
  size_t count = 0;
  S8Panel w[2] = {};
  const uint16_t* start = nullptr;  // (count, kStartTile)
};

// Rows [row, row + rows) of these columns, at most 32, and their part of A. rows = 0: no block.
struct S8Block {
  size_t row = 0;
  size_t rows = 0;
  S8Rows a = {};
  const uint16_t* start = nullptr;  // (rows / 16, kStartTile)
  const S8Columns* columns = nullptr;

  bool has(size_t i, size_t j) const { return i * kAmxRows < rows && j < columns->count; }
};

// The part of the next columns that a block prefetches into L2: with every group, `bytes` of each
// vector.
struct S8Next {
  const int8_t* packed = nullptr;
  size_t bytes = 0;
};

// Rows that are finished at a time.
constexpr size_t kShareRows = kAmxBlock / 4;

// The state of a call between blocks.
struct S8Pipeline {
  explicit S8Pipeline(const GemmArgs& args)
      : g(args),
        groups(ceil_div(g.k, kS8Group)),
        vector_size(ceil_div(g.packed_k, kS8Group) * kS8Group * kLanes) {}

  const GemmArgs& g;
  size_t groups;
  size_t vector_size;  // of packed weights
  S8Next next = {};
  S8Block last = {};  // the sums of its last group are still in the tiles
  // (32, 32) each.
  alignas(64) int32_t sums[kAmxBlock * kAmxBlock];  // of the previous stage
  alignas(64) float totals[kAmxBlock * kAmxBlock];  // of the stages before that
};

template <typename Sum>
SIMDFORMER_INLINE Sum* tile_of(Sum* sums, size_t i, size_t j) {
  return sums + i * kAmxRows * kAmxBlock + j * kLanes;
}

template <size_t NV>
SIMDFORMER_INLINE void load_scales(const S8Columns& columns, size_t group, VecF32 (&scale_w)[NV]) {
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) {
    scale_w[j] = VecF32::load(columns.w[j].ranges + group * 2 * kLanes);
  }
}

// A row's totals plus its scaled sums.
template <size_t NV>
SIMDFORMER_INLINE void add_scaled(const S8Pipeline& p, size_t row, float scale,
                                  const VecF32 (&scale_w)[NV], VecF32 (&total)[NV]) {
  const VecF32 scale_a = VecF32::broadcast(scale);
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) {
    const size_t at = row * kAmxBlock + j * kLanes;
    const VecI32 sum = VecI32::load(reinterpret_cast<const int8_t*>(p.sums + at));
    total[j] = fma(to_float(sum) * scale_w[j], scale_a, VecF32::load(p.totals + at));
  }
}

// totals += scaled sums of a group, rows [begin, end) of a block.
template <size_t NV>
SIMDFORMER_INLINE void add_to_totals(const S8Block& b, size_t group, size_t begin, size_t end,
                                     S8Pipeline& p) {
  VecF32 scale_w[NV];
  load_scales(*b.columns, group, scale_w);
  const float* scale = b.a.scale + group * b.a.capacity;
  for (size_t row = begin; row < end; ++row) {
    VecF32 total[NV];
    add_scaled(p, row, scale[row], scale_w, total);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) total[j].store(p.totals + row * kAmxBlock + j * kLanes);
  }
}

// A tile of NV vectors, which may be in two panels.
template <size_t NV>
SIMDFORMER_INLINE Tile columns_tile(const GemmArgs& g, size_t vector, size_t row) {
  Tile tile = vector_tile(g, vector, row);
  if constexpr (NV == 2) {
    tile.tail = vector_tile(g, vector + 1, row).tail;
    tile.width += tile.tail;
  }
  return tile;
}

// Finishes rows [first, first + MR) of the last block, after the sums of its last group were
// stored.
template <size_t MR, size_t NV>
SIMDFORMER_NOINLINE void finish_block_rows(const S8Pipeline& p, size_t first) {
  const S8Block& b = p.last;
  const size_t group = p.groups - 1;
  VecF32 scale_w[NV];
  load_scales(*b.columns, group, scale_w);
  const float* scale = b.a.scale + group * b.a.capacity + first;
  VecF32 sum[MR][NV];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) add_scaled(p, first + i, scale[i], scale_w, sum[i]);
  add_more_outliers(p.groups, b.a.from(first), b.columns->w, sum);
  const Tile tile = columns_tile<NV>(p.g, b.columns->vector, b.row + first);
  if (tile.accumulate) add_tile(sum, tile);
  store_tile(sum, tile);
}

// Finishes a quarter of the last block.
SIMDFORMER_INLINE void finish_share(const S8Pipeline& p, size_t share) {
  const size_t first = share * kShareRows;
  if (first >= p.last.rows) return;
  with_tile_size<kShareRows, 2>(
      min_size(kShareRows, p.last.rows - first), p.last.columns->count,
      [&]<size_t MR, size_t NV>() { finish_block_rows<MR, NV>(p, first); });
}

}  // namespace
}  // namespace simdformer

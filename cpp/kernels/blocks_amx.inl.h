// SPDX-License-Identifier: Apache-2.0
// The common parts of the GEMMs with AMX. They work on blocks of 32 x 32 sums (four tiles), in
// columns of one or two vectors, which need not start at a panel of kNR columns.
#pragma once

#include "kernels/gemm.inl.h"
#include "simd/tile_amx.h"

namespace simdformer {
namespace {

constexpr size_t kAmxBlock = 2 * kAmxRows;                // rows, and columns, of a block
constexpr size_t kSumsBytes = kAmxBlock * sizeof(float);  // per row of sums
static_assert(kLanes == kAmxRows);

// The vectors of C in the panels of a call.
SIMDFORMER_INLINE size_t begin_vector(const GemmArgs& g) { return g.panel_begin * kTileVectors; }
SIMDFORMER_INLINE size_t end_vector(const GemmArgs& g) {
  return min_size(g.panel_end * kTileVectors, ceil_div(g.n, kLanes));
}

// Prefetches the part of c that a block will write.
SIMDFORMER_INLINE void prefetch_block(const GemmArgs& g, size_t vector, size_t row, size_t rows) {
  const float* c = g.c + row * g.ldc + (vector * kLanes - g.c_begin);
  for (size_t i = 0; i < rows; ++i, c += g.ldc) {
    __builtin_prefetch(c, 1);
    __builtin_prefetch(c + kLanes, 1);
  }
}

// One vector of the tile that make_tile returns for a whole panel.
SIMDFORMER_INLINE Tile vector_tile(const GemmArgs& g, size_t vector, size_t row) {
  Tile tile = make_tile(g, vector / kTileVectors, row);
  const size_t offset = vector % kTileVectors * kLanes;
  tile.c += offset;
  tile.width = tile.tail = min_size(kLanes, tile.width - offset);
  if (tile.bias) tile.bias += offset;
  if (tile.residual) tile.residual += offset;
  return tile;
}

// A panel is finished when its last vector is.
SIMDFORMER_INLINE void finish_vector(const GemmArgs& g, size_t vector, size_t row, size_t rows) {
  const size_t panel = vector / kTileVectors;
  const size_t last = panel * kTileVectors + panel_vectors(g.n, panel * kNR) - 1;
  if (vector == last) finish_tile(g, panel, row, rows, make_tile(g, panel, row));
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// gemm with weights in bfloat16 on AMX tiles, which multiply 16 times as fast as FMAs. A is not
// rounded: each number is the sum of three bfloat16 (split_avx512.h), so one product takes three.
// The sums are as precise as an FMA chain. Splitting float32 weights in three parts too, with six
// products (Henry, Tang and Heinecke 2019, arXiv:1904.06376), gained a fifth on batches, and lost a
// fifth on single texts, which then read half as many bytes again. It lost more when another
// process used the core's tiles.
#pragma once

#include "kernels/blocks_amx.inl.h"
#include "kernels/gemm_bf16.inl.h"
#include "simd/split_avx512.h"

namespace simdformer {
namespace {

constexpr size_t kTileStep = kAmxBytes / sizeof(uint16_t);  // columns of a tile: 32 steps of k
constexpr size_t kTileSize = kTileStep * kAmxRows;          // numbers per tile
// Rows and columns of A that are split at a time: 144 KB, because the stack of a Python thread may
// be small. 128 rows were 1-2% faster; 192 columns 15% slower.
constexpr size_t kSplitRows = 64;
constexpr size_t kSplitDepth = 384;
// Tiles treat subnormal numbers as 0, and infinities are split into NaN. So a row is computed by
// FMAs if its largest magnitude is below this, or if it contains a number that is not finite.
constexpr float kSplitLeast = 0x1p-40f;

// A block of A's rows: (steps, kSplitPlanes, kAmxBlock, kTileStep). Columns p and p + 16 of a step
// are adjacent, so that they make a pair in one lane.
struct SplitBlock {
  const uint16_t* planes;
  const bool* by_fma;  // (kAmxBlock)
};
constexpr size_t kBlockPlane = kAmxBlock * kTileStep;
constexpr size_t kBlockSize = kSplitDepth / kTileStep * kSplitPlanes * kBlockPlane;

// One or two vectors of W, starting with the first step of this call.
struct TileWeights {
  const uint16_t* first;
  size_t second;  // offset
};

// The part of the next columns that a block prefetches into L2: in each step, `size` numbers of
// each vector.
struct TileShare {
  const uint16_t* p;
  size_t size;
};

size_t bf16_tiles_size(size_t n, size_t k) { return round_up(n, kLanes) * round_up(k, kTileStep); }

// Splits up to 32 columns of a row. Returns the larger magnitude of each lane, as bits.
SIMDFORMER_INLINE VecI32 split_step(const float* x, size_t cols, uint16_t* to, size_t plane) {
  const size_t first = min_size(cols, kLanes);
  const bool whole = cols >= kTileStep;
  const VecF32 low = whole ? VecF32::load(x) : VecF32::load(x, first);
  const VecF32 high = whole ? VecF32::load(x + kLanes) : VecF32::load(x + first, cols - first);
  store_split(low, high, to, plane);
  return max(as_ints(abs(low)), as_ints(abs(high)));
}

// Whether tiles can be used for numbers of up to this magnitude.
SIMDFORMER_INLINE bool may_split(int32_t largest) {
  constexpr int32_t kInfinityBits = 0x7F800000;
  int32_t least;
  __builtin_memcpy(&least, &kSplitLeast, sizeof(least));
  return largest == 0 || (largest >= least && largest < kInfinityBits);
}

// Splits rows [row, row + rows) into a block, rows <= 16. The outer loop is over steps, so that
// adjacent memory is written. With an outer loop over rows, the planes of all steps fell into the
// same sets of L1.
SIMDFORMER_INLINE void split_rows(const GemmArgs& g, size_t row, size_t rows, uint16_t* planes,
                                  bool* by_fma) {
  VecI32 largest[kAmxRows];
  for (size_t i = 0; i < rows; ++i) largest[i] = VecI32::zero();
  for (size_t k = 0; k < g.k; k += kTileStep) {
    const size_t cols = min_size(kTileStep, g.k - k);
    for (size_t i = 0; i < rows; ++i) {
      const float* x = g.a + (row + i) * g.lda + k;
      largest[i] = max(split_step(x, cols, planes + i * kTileStep, kBlockPlane), largest[i]);
    }
    planes += kSplitPlanes * kBlockPlane;
  }
  for (size_t i = 0; i < rows; ++i) by_fma[i] = !may_split(reduce_max(largest[i]));
}

// Vectors of columns: [n / 16][steps][16 pairs of k][16 columns][2].
bool pack_bf16_tiles(size_t n, size_t k, const float* weight, size_t ldw, uint16_t* packed) {
  alignas(64) uint16_t planes[kSplitPlanes * kTileSize];
  VecI32 largest = VecI32::zero();
  for (size_t column = 0; column < n; column += kLanes) {
    for (size_t first = 0; first < k; first += kTileStep, packed += kTileSize) {
      for (size_t j = 0; j < kLanes; ++j) {
        float values[kTileStep] = {};
        const size_t cols = column + j < n ? min_size(kTileStep, k - first) : 0;
        for (size_t p = 0; p < cols; ++p) {
          values[p] = from_bf16(to_bf16(weight[(column + j) * ldw + first + p]));
        }
        largest = max(split_step(values, kTileStep, planes + j * kTileStep, kTileSize), largest);
      }
      transpose_tile(reinterpret_cast<const float*>(planes), kLanes,
                     reinterpret_cast<float*>(packed), kLanes);
    }
  }
  return may_split(reduce_max(largest));
}

// Multiplies one plane of a step, in all tiles of a block. The smallest plane comes first and loads
// W.
template <size_t Rows, size_t Cols, bool First>
SIMDFORMER_INLINE void multiply_plane(const uint16_t* a, const TileWeights& w) {
  for_each_sum<Rows, Cols>([&]<int I, int J>() {
    if constexpr (J == 0) load_amx_tile<4 + I>(a + I * kTileSize, kAmxBytes);
    if constexpr (I == 0 && First) load_amx_tile<6 + J>(w.first + J * w.second, kAmxBytes);
    dot_tiles_bf16<2 * I + J, 4 + I, 6 + J>();
  });
}

// sums (+)= A W^T over `steps` steps. sums: (32, 32).
template <size_t Rows, size_t Cols>
SIMDFORMER_NOINLINE void sum_products(size_t steps, const uint16_t* a, TileWeights w,
                                      TileShare next, bool accumulate, float* sums) {
  const auto place = [&](int i, int j) {
    return sums + static_cast<size_t>(i) * kAmxRows * kAmxBlock + static_cast<size_t>(j) * kLanes;
  };
  for_each_sum<Rows, Cols>([&]<int I, int J>() {
    accumulate ? load_amx_tile<2 * I + J>(place(I, J), kSumsBytes) : zero_tile<2 * I + J>();
  });
  for (size_t step = 0; step < steps; ++step) {
    for (size_t i = 0; i < next.size; i += kTileStep) {
      __builtin_prefetch(next.p + i, 0, kIntoL2);
      __builtin_prefetch(next.p + w.second + i, 0, kIntoL2);
    }
    multiply_plane<Rows, Cols, true>(a + 2 * kBlockPlane, w);
    multiply_plane<Rows, Cols, false>(a + kBlockPlane, w);
    multiply_plane<Rows, Cols, false>(a, w);
    a += kSplitPlanes * kBlockPlane;
    w.first += kTileSize;
    next.p += kTileSize;
  }
  for_each_sum<Rows, Cols>(
      [&]<int I, int J>() { store_amx_tile<2 * I + J>(place(I, J), kSumsBytes); });
}

// The sums of one row and one vector by FMAs, in the order of k.
SIMDFORMER_NOINLINE void sum_row(size_t k, const float* x, const uint16_t* w, bool accumulate,
                                 float* sums) {
  VecF32 sum = accumulate ? VecF32::load(sums) : VecF32::zero();
  for (size_t p = 0; p < k; ++p) {
    const uint16_t* pairs = w + p / kTileStep * kTileSize + p % kLanes * 2 * kLanes;
    const VecF32 weight = p % kTileStep < kLanes ? low_half(pairs) : high_half(pairs);
    sum = fma(VecF32::broadcast(x[p]), weight, sum);
  }
  sum.store(sums);
}

// Copies the present content of c into the block of sums.
SIMDFORMER_INLINE void load_sums(const Tile& tile, size_t rows, float* sums) {
  for (size_t i = 0; i < rows; ++i) {
    VecF32::load(tile.c + i * tile.ldc, tile.width).store(sums + i * kAmxBlock);
  }
}

// Stores a tile's sums in c, with bias and residual.
SIMDFORMER_INLINE void store_block(const Tile& tile, size_t rows, const float* sums) {
  with_tile_size<kAmxRows, 1>(rows, 1, [&]<size_t MR, size_t NV>() {
    VecF32 sum[MR][NV];
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) sum[i][0] = VecF32::load(sums + i * kAmxBlock);
    store_tile(sum, tile);
  });
}

// The sums of one vector for the rows of a block that tiles cannot compute.
SIMDFORMER_INLINE void sum_rows_by_fma(const GemmArgs& g, const SplitBlock& a, const uint16_t* w,
                                       size_t vector, size_t row, size_t rows, float* sums) {
  for (size_t i = 0; i < rows; ++i, sums += kAmxBlock) {
    if (!a.by_fma[i]) continue;
    if (g.accumulate) load_sums(vector_tile(g, vector, row + i), 1, sums);
    sum_row(g.k, g.a + (row + i) * g.lda, w, g.accumulate, sums);
  }
}

// Computes vectors [vector, vector + Cols) of C for rows [row, row + rows), rows in [1, 32].
template <size_t Cols>
SIMDFORMER_INLINE void multiply_split(const GemmArgs& g, const TileWeights& w, TileShare next,
                                      const SplitBlock& a, size_t vector, size_t row, size_t rows) {
  alignas(64) float sums[kAmxBlock * kAmxBlock];
  prefetch_block(g, vector, row, rows);
  for (size_t j = 0; g.accumulate && j < Cols; ++j) {
    load_sums(vector_tile(g, vector + j, row), rows, sums + j * kLanes);
  }
  const auto sum = rows > kAmxRows ? sum_products<2, Cols> : sum_products<1, Cols>;
  sum(ceil_div(g.k, kTileStep), a.planes, w, next, g.accumulate, sums);
  for (size_t j = 0; j < Cols; ++j) {
    sum_rows_by_fma(g, a, w.first + j * w.second, vector + j, row, rows, sums + j * kLanes);
    for (size_t first = 0; first < rows; first += kAmxRows) {
      store_block(vector_tile(g, vector + j, row + first), min_size(kAmxRows, rows - first),
                  sums + first * kAmxBlock + j * kLanes);
    }
    finish_vector(g, vector + j, row, rows);
  }
}

// Rows [row, row + rows) times every panel. blocks: the blocks of these rows.
SIMDFORMER_INLINE void multiply_rows(const GemmArgs& g, const uint16_t* packed,
                                     const SplitBlock* blocks, size_t row, size_t rows) {
  const size_t vector_size = ceil_div(g.packed_k, kTileStep) * kTileSize;
  const size_t count = ceil_div(rows, kAmxBlock);
  const size_t share = kTileSize / count;
  const size_t end = end_vector(g);
  const uint16_t* w = packed + g.k_begin / kTileStep * kTileSize;
  for (size_t vector = begin_vector(g); vector < end; vector += 2) {
    const TileWeights weights{w + vector * vector_size, vector_size};
    const bool prefetches = vector + 3 < end;
    const uint16_t* next = prefetches ? weights.first + 2 * vector_size : weights.first;
    for (size_t i = 0; i < count; ++i) {
      const size_t first = row + i * kAmxBlock;
      const size_t height = min_size(kAmxBlock, row + rows - first);
      const TileShare shared{next + i * share, prefetches ? share : 0};
      vector + 1 < end ? multiply_split<2>(g, weights, shared, blocks[i], vector, first, height)
                       : multiply_split<1>(g, weights, shared, blocks[i], vector, first, height);
    }
  }
}

void gemm_bf16_tiles(const GemmArgs& g, const uint16_t* packed) {
  if (g.m == 0) return;
  constexpr size_t kBlocks = kSplitRows / kAmxBlock;
  alignas(64) uint16_t planes[kBlocks * kBlockSize];
  bool by_fma[kSplitRows];
  SplitBlock blocks[kBlocks];
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks[i] = {planes + i * kBlockSize, by_fma + i * kAmxBlock};
  }
  configure_tiles(min_size(g.m, kAmxRows));
  for (size_t row = 0; row < g.m; row += kSplitRows) {
    const size_t rows = min_size(kSplitRows, g.m - row);
    for (size_t k = 0; k < g.k; k += kSplitDepth) {
      const GemmArgs part = depth_part(g, k, kSplitDepth);
      for (size_t i = 0; i < rows; i += kAmxRows) {
        const size_t place = i / kAmxBlock * kBlockSize + i % kAmxBlock * kTileStep;
        split_rows(part, row + i, min_size(kAmxRows, rows - i), planes + place, by_fma + i);
      }
      multiply_rows(part, packed, blocks, row, rows);
    }
    finish_rows(g, row, rows);
  }
  release_tiles();
}

}  // namespace
}  // namespace simdformer

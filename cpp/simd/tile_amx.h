// SPDX-License-Identifier: Apache-2.0
// AMX tiles of bytes or bfloat16 and of their sums. In assembly, because gcc 12's intrinsics do not
// declare the memory that they read, so it drops earlier writes to it.
#pragma once

#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

constexpr size_t kAmxRows = 16;   // rows per tile
constexpr size_t kAmxBytes = 64;  // bytes per row of a tile: 16 sums, or 64 int8, or 32 bfloat16

struct alignas(64) AmxConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3 contain sums, 4 and 5 `rows` rows of A, 6 and 7 weights of 16 columns. The thread
// has tiles from here until release_tiles.
SIMDFORMER_INLINE void configure_tiles(size_t rows) {
  AmxConfig config;
  for (size_t tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kAmxBytes;
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kAmxRows);
  }
  asm volatile("ldtilecfg %0" : : "m"(config));
}
SIMDFORMER_INLINE void release_tiles() { asm volatile("tilerelease"); }

template <int Tile>
SIMDFORMER_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
// stride: in bytes, from row to row.
template <int Tile>
SIMDFORMER_INLINE void load_amx_tile(const void* p, size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
SIMDFORMER_INLINE void store_amx_tile(void* p, size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(Tile) : "memory");
}
// Sum[i, j] += sum_p A[i, p] W[j, p], exact: A unsigned, W signed, with four adjacent bytes of each
// j.
template <int Sum, int A, int W>
SIMDFORMER_INLINE void dot_tiles() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(W));
}
// The same for bfloat16, with two adjacent numbers of each j. The products of the first ones and of
// the second ones are each summed by FMAs in the order of p, then both sums are added to Sum.
// Subnormal numbers count as 0.
template <int Sum, int A, int W>
SIMDFORMER_INLINE void dot_tiles_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(W));
}

// Calls the function for each tile of sums in a block of Rows x Cols tiles.
template <size_t Rows, size_t Cols, typename Work>
SIMDFORMER_INLINE void for_each_sum(const Work& work) {
  work.template operator()<0, 0>();
  if constexpr (Cols == 2) work.template operator()<0, 1>();
  if constexpr (Rows == 2) work.template operator()<1, 0>();
  if constexpr (Rows == 2 && Cols == 2) work.template operator()<1, 1>();
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// AMX tiles of bytes and of int32. In assembly, because gcc 12's intrinsics do not say which memory
// they read: it drops what was written there.
#pragma once

#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

constexpr size_t kAmxRows = 16;   // of a tile
constexpr size_t kAmxBytes = 64;  // of a tile's row: 16 int32, or 64 products a sum

struct alignas(64) AmxConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3 are sums, 4 and 5 take `rows` rows of A, 6 and 7 take 64 x 16 weights. A thread has
// tiles from here until release_tiles.
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
// stride: bytes from row to row.
template <int Tile>
SIMDFORMER_INLINE void load_amx_tile(const void* p, size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
SIMDFORMER_INLINE void store_amx_tile(int32_t* p, size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(Tile) : "memory");
}
// Sum[i, j] += sum_p A[i, p] W[j, p], exact: A unsigned, W signed, four bytes of each j together.
template <int Sum, int A, int W>
SIMDFORMER_INLINE void dot_tiles() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(W));
}

}  // namespace
}  // namespace simdformer

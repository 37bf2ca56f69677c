// SPDX-License-Identifier: Apache-2.0
// gemm with weights stored in bfloat16: half the bytes from memory, the same float32 arithmetic.
// A block of a panel is widened once, in L1, and every strip of A passes it there; widening it
// where it is multiplied would cost two more instructions a vector and strip, on the ports of the
// FMAs. Sums go through c between the blocks, so each is still one FMA chain in the order of k.
#pragma once

#include "kernels/gemm.inl.h"

namespace simdformer {
namespace {

// Widened weights at a time: 24 KB of L1, 128 steps of k of an AVX-512 panel.
constexpr size_t kWidened = 6144;
constexpr size_t kFewStrips = 4;

SIMDFORMER_INLINE uint16_t to_bf16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

void pack_weight_bf16(size_t n, size_t k, const float* weight, size_t ldw, size_t panel_begin,
                      size_t panel_end, uint16_t* packed) {
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    const size_t column = panel * kNR;
    const size_t width = panel_vectors(n, column) * kLanes;
    uint16_t* dst = packed + column * k;
    for (size_t j = 0; j < width; ++j) {
      const float* src = weight + (column + j) * ldw;
      for (size_t p = 0; p < k; ++p) {
        dst[p * width + j] = column + j < n ? to_bf16(src[p]) : uint16_t{0};
      }
    }
  }
}

// size: whole vectors. What follows in memory is on its way into L2 meanwhile.
SIMDFORMER_INLINE void widen(size_t size, const uint16_t* SIMDFORMER_RESTRICT packed,
                             float* SIMDFORMER_RESTRICT wide) {
  constexpr size_t kLine = 64 / sizeof(uint16_t);
  for (size_t i = 0; i < size; i += kLine) __builtin_prefetch(packed + size + i, 0, 2);
  for (size_t i = 0; i < size; i += kLanes) VecF32::load(packed + i).store(wide + i);
}

// A strip of A against steps [begin, begin + depth) of a panel, w: float32 or bfloat16.
template <typename Weight>
SIMDFORMER_INLINE void gemm_block(const GemmArgs& g, size_t panel, size_t strip, size_t begin,
                                  size_t depth, const Weight* w, const void* next) {
  const size_t strips = ceil_div(g.m, kTileRows);
  const size_t row = strip * g.m / strips;
  const size_t rows = (strip + 1) * g.m / strips - row;
  const size_t vectors = panel_vectors(g.n, panel * kNR);
  GemmArgs block = g;
  block.accumulate = g.accumulate || begin > 0;
  block.finish = g.finish && begin + depth == g.k;
  Tile tile = make_tile(block, panel, row);
  tile.next_panel = static_cast<const float*>(next);  // an address to prefetch, no more
  tile.next_step = next == w ? 0 : vectors * kLanes / 2;
  with_tile_size<kTileRows, kTileVectors>(rows, vectors, [&]<size_t MR, size_t NV>() {
    micro_kernel<MR, NV>(depth, g.a + row * g.lda + begin, g.lda, w, tile);
  });
  finish_tile(block, panel, row, rows, tile);
  if (block.finish && panel + 1 == g.panel_end) finish_rows(g, row, rows);
}

// Few strips widen where they multiply; the last one fetches the next panel.
SIMDFORMER_INLINE void gemm_narrow(const GemmArgs& g, size_t panel, const uint16_t* w,
                                   size_t strips) {
  const size_t width = panel_vectors(g.n, panel * kNR) * kLanes;
  for (size_t strip = 0; strip < strips; ++strip) {
    const bool fetch = strip + 1 == strips && panel + 1 < g.panel_end;
    gemm_block(g, panel, strip, 0, g.k, w, fetch ? w + g.packed_k * width : w);
  }
}

SIMDFORMER_INLINE void gemm_widened(const GemmArgs& g, size_t panel, const uint16_t* w,
                                    size_t strips) {
  alignas(64) float wide[kWidened];
  const size_t width = panel_vectors(g.n, panel * kNR) * kLanes;
  const size_t blocks = ceil_div(g.k, kWidened / width);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t begin = i * g.k / blocks;
    const size_t depth = (i + 1) * g.k / blocks - begin;
    widen(depth * width, w + begin * width, wide);
    for (size_t strip = 0; strip < strips; ++strip) {
      gemm_block(g, panel, strip, begin, depth, wide, wide);
    }
  }
}

void gemm_bf16(const GemmArgs& g, const uint16_t* packed_weight) {
  const size_t strips = ceil_div(g.m, kTileRows);
  for (size_t panel = g.panel_begin; panel < g.panel_end; ++panel) {
    const size_t column = panel * kNR;
    const uint16_t* w =
        packed_weight + column * g.packed_k + g.k_begin * panel_vectors(g.n, column) * kLanes;
    strips <= kFewStrips ? gemm_narrow(g, panel, w, strips) : gemm_widened(g, panel, w, strips);
  }
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// gemm with weights stored in bfloat16: half the bytes from memory, the same float32 arithmetic. A
// block of a panel is widened once, stays in L1, and is used by every strip of A. Widening in the
// micro-kernel would cost two more instructions per vector and strip, on the ports of the FMAs.
// Between the blocks, sums are stored in c, so each is still one FMA chain in the order of k.
#pragma once

#include "kernels/gemm.inl.h"

namespace simdformer {
namespace {

// Number of widened weights at a time: 24 KB of L1, 128 steps of k of an AVX-512 panel.
constexpr size_t kWidened = 6144;
constexpr size_t kFewStrips = 4;

SIMDFORMER_INLINE uint16_t to_bf16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

SIMDFORMER_INLINE float from_bf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
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

// size: whole vectors. Meanwhile the following memory is prefetched into L2.
SIMDFORMER_INLINE void widen(size_t size, const uint16_t* SIMDFORMER_RESTRICT packed,
                             float* SIMDFORMER_RESTRICT wide) {
  constexpr size_t kLine = 64 / sizeof(uint16_t);
  for (size_t i = 0; i < size; i += kLine) __builtin_prefetch(packed + size + i, 0, 2);
  for (size_t i = 0; i < size; i += kLanes) VecF32::load(packed + i).store(wide + i);
}

// Widens steps of k [begin, begin + depth) of a panel.
struct Steps {
  size_t begin;
  size_t depth;
};

// One strip of A times some steps of a panel w, in float32 or bfloat16. One step of `next` is
// prefetched into L2 every `interval` steps.
template <typename Weight>
SIMDFORMER_INLINE void gemm_block(const GemmArgs& g, const Walk& walk, size_t panel, size_t strip,
                                  Steps steps, const Weight* w, const Weight* next,
                                  size_t interval) {
  const size_t row = walk.begin(strip);
  const size_t rows = walk.begin(strip + 1) - row;
  GemmArgs block = g;
  block.accumulate = g.accumulate || steps.begin > 0;
  block.finish = g.finish && steps.begin + steps.depth == g.k;
  Tile tile = make_tile(block, panel, row);
  tile.next_panel = next;
  tile.next_interval = interval;
  with_tile_size<kTileRows, kTileVectors>(
      rows, panel_vectors(g.n, panel * kNR), [&]<size_t MR, size_t NV>() {
        micro_kernel<MR, NV>(steps.depth, g.a + row * g.lda + steps.begin, g.lda, w, tile);
      });
  finish_tile(block, panel, row, rows, tile);
  if (block.finish && panel + 1 == g.panel_end) finish_rows(g, row, rows);
}

// With few strips, weights are widened in the micro-kernel, and the next panel is prefetched as in
// gemm.
SIMDFORMER_INLINE void gemm_narrow(const GemmArgs& g, const Walk& walk, size_t panel,
                                   const uint16_t* w) {
  const size_t width = panel_vectors(g.n, panel * kNR) * kLanes;
  const bool last = panel + 1 == g.panel_end;
  for (size_t strip = 0; strip < walk.strips; ++strip) {
    const uint16_t* next = last ? w : w + (g.packed_k + strip * walk.share_steps) * width;
    gemm_block(g, walk, panel, strip, {0, g.k}, w, next, last ? g.k : walk.shares);
  }
}

SIMDFORMER_INLINE void gemm_widened(const GemmArgs& g, const Walk& walk, size_t panel,
                                    const uint16_t* w) {
  alignas(64) float wide[kWidened];
  const size_t width = panel_vectors(g.n, panel * kNR) * kLanes;
  const size_t blocks = ceil_div(g.k, kWidened / width);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t begin = i * g.k / blocks;
    const Steps steps{begin, (i + 1) * g.k / blocks - begin};
    widen(steps.depth * width, w + begin * width, wide);
    for (size_t strip = 0; strip < walk.strips; ++strip) {
      gemm_block<float>(g, walk, panel, strip, steps, wide, wide, steps.depth);
    }
  }
}

void gemm_bf16(const GemmArgs& g, const uint16_t* packed_weight) {
  if (g.m == 0) return;
  const Walk walk = plan_walk(g.m, g.k, kTileRows);
  for (size_t panel = g.panel_begin; panel < g.panel_end; ++panel) {
    const size_t column = panel * kNR;
    const uint16_t* w =
        packed_weight + column * g.packed_k + g.k_begin * panel_vectors(g.n, column) * kLanes;
    walk.strips <= kFewStrips ? gemm_narrow(g, walk, panel, w) : gemm_widened(g, walk, panel, w);
  }
}

}  // namespace
}  // namespace simdformer

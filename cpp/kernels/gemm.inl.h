// SPDX-License-Identifier: Apache-2.0
// C = A W^T with fused epilogues (formula at GemmArgs). W is packed once into panels of NR columns,
// [n / NR][k][NR], so that the micro-kernel streams it; A is read in place, one broadcast a row.
// Each element of C is a single FMA chain in the order of k, for every tile shape.
#pragma once

#include "kernels/activation.inl.h"
#include "kernels/kernels.h"
#include "kernels/layer_norm.inl.h"
#include "simd/macros.h"

namespace simdformer {
namespace {

constexpr size_t kNR = kTileVectors * kLanes;

// Whole vectors in the panel that starts at column.
SIMDFORMER_INLINE size_t panel_vectors(size_t n, size_t column) {
  return ceil_div(min_size(n - column, kNR), kLanes);
}

size_t packed_size(size_t n, size_t k) { return round_up(n, kLanes) * k; }

// transpose_tile of fewer rows, zeros for the rest. Element by element, attention of 13 keys took
// 0.36 us in place of 0.30 (Zen 5, head_dim 32).
SIMDFORMER_INLINE void transpose_rows(size_t rows, const float* src, size_t lds, float* dst,
                                      size_t ldd) {
  alignas(64) float tile[kLanes * kLanes];
  for (size_t r = 0; r < kLanes; ++r) {
    (r < rows ? VecF32::load(src + r * lds) : VecF32::zero()).store(tile + r * kLanes);
  }
  transpose_tile(tile, kLanes, dst, ldd);
}

void pack_weight(size_t n, size_t k, const float* weight, size_t ldw, size_t panel_begin,
                 size_t panel_end, float* packed) {
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    const size_t column = panel * kNR;
    const size_t width = panel_vectors(n, column) * kLanes;
    float* dst = packed + column * k;
    for (size_t j = 0; j < width; j += kLanes) {
      const size_t rows = min_size(kLanes, n - min_size(n, column + j));
      const float* src = weight + (column + j) * ldw;
      size_t p = 0;
      for (; p + kLanes <= k; p += kLanes) {
        float* to = dst + p * width + j;
        rows == kLanes ? transpose_tile(src + p, ldw, to, width)
                       : transpose_rows(rows, src + p, ldw, to, width);
      }
      for (; p < k; ++p) {
        for (size_t r = 0; r < kLanes; ++r) {
          dst[p * width + j + r] = r < rows ? src[r * ldw + p] : 0.0f;
        }
      }
    }
  }
}

// One register tile: its place in c and what is left to do when its sums are complete.
struct Tile {
  float* c;
  size_t ldc;
  size_t width;           // valid columns, <= NV * kLanes
  size_t tail;            // valid lanes of the last vector, in [1, kLanes]
  const float* bias;      // at the tile's first column, or null
  const float* residual;  // at the tile's first element, or null
  size_t ldr;
  bool accumulate;
  const void* next_panel = nullptr;  // brought into L2 meanwhile, one step of k of it
  size_t next_interval = 0;          // every next_interval steps
};

// Whole says that the tile has no columns beyond n: plain loads and stores (vmaskmovps stores are
// microcoded on AMD, and the generic level would go lane by lane).
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

// acc += what c holds.
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

// What the tile's sums begin with.
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

// Whole tiles without bias and residual, as attention's, are stored as they are.
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

// One step's worth of a panel.
template <size_t NV, int Level, typename Weight>
SIMDFORMER_INLINE void prefetch_step(const Weight* p) {
  constexpr size_t kLine = 64 / sizeof(Weight);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < NV * kLanes; i += kLine) __builtin_prefetch(p + i, 0, Level);
}

// A panel is wider than L1: its lines are asked for this many steps before they are due, since FMAs
// that were issued for a load that then misses are issued again. Granite Rapids, AVX-512: 86% ->
// 94% of peak with the panel in L2; 4, 8, 12 and 16 steps within noise. Zen 5: 16 steps are 3%
// faster than 8 at 14 rows, 1% at 128. Zen 4: no gain.
constexpr size_t kStepsAhead = 16;

// The hot loop: MR x NV accumulators, NV loads of W and MR broadcasts of A per step of k. A
// function of its own, so that the registers are this tile's alone. Unrolled by hand, gcc 12 copies
// accumulators (94% -> 89%). Weight: float, or bfloat16 in uint16_t, which VecF32::load widens.
template <size_t MR, size_t NV, typename Weight>
SIMDFORMER_NOINLINE void micro_kernel(size_t k, const float* SIMDFORMER_RESTRICT a, size_t lda,
                                      const Weight* SIMDFORMER_RESTRICT w, const Tile& tile) {
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

// The tile of one panel of W and a strip of A that begins at row.
SIMDFORMER_INLINE Tile make_tile(const GemmArgs& g, size_t panel, size_t row) {
  const size_t column = panel * kNR;
  const size_t width = min_size(kNR, g.n - column);
  const bool fuse_residual = g.finish && g.residual && g.activation == Activation::kIdentity;
  return {.c = g.c + row * g.ldc + (column - g.c_begin),
          .ldc = g.ldc,
          .width = width,
          .tail = width - (panel_vectors(g.n, column) - 1) * kLanes,
          .bias = g.finish && g.bias ? g.bias + column : nullptr,
          .residual = fuse_residual ? g.residual + row * g.ldr + column : nullptr,
          .ldr = g.ldr,
          .accumulate = g.accumulate,
          .next_panel = nullptr,
          .next_interval = 0};
}

// The tile is still in L1: what needs whole rows or a lot of registers is done on it there.
SIMDFORMER_INLINE void finish_tile(const GemmArgs& g, size_t panel, size_t row, size_t rows,
                                   const Tile& tile) {
  if (!g.finish || g.activation == Activation::kIdentity) return;
  activate_rows(g.activation, rows, tile.width, tile.c, tile.ldc, tile.c, tile.ldc);
  for (size_t i = 0; g.residual && i < rows; ++i) {
    add_row(tile.width, g.residual + (row + i) * g.ldr + panel * kNR, tile.c + i * tile.ldc);
  }
}

// How a call walks over its tiles: strips of rows of nearly equal height (14 rows: 7 + 7, not 8 +
// 6), and the shares in which they bring the next panel into L2. Hardware prefetchers stop at the
// end of a page, and the weights come from L3 or DRAM; spread over the strips, memory is never idle
// and never asked for a whole panel at once: 81% -> 90% of peak at 128 rows whose weights exceed L2
// (Granite Rapids, AVX-512), 48% -> 65% at 14 (Zen 4, AVX2). Of more than kMaxShares strips the
// first ones do it.
struct Walk {
  static constexpr size_t kMaxShares = 16;

  size_t strips;
  size_t rows;    // of a strip,
  size_t taller;  // and one more in so many strips
  size_t shares;
  size_t share_steps;  // steps of k in a share

  size_t begin(size_t strip) const { return strip * rows + min_size(strip, taller); }
};

SIMDFORMER_INLINE Walk plan_walk(size_t m, size_t k, size_t tile_rows) {
  const size_t strips = ceil_div(m, tile_rows);
  const size_t shares = min_size(strips, Walk::kMaxShares);
  return {.strips = strips,
          .rows = m / strips,
          .taller = m % strips,
          .shares = shares,
          .share_steps = ceil_div(k, shares)};
}

// One panel of W against one strip of A's rows.
SIMDFORMER_INLINE void gemm_tile(const GemmArgs& g, const Walk& walk, size_t panel, size_t strip) {
  const size_t row = walk.begin(strip);
  const size_t rows = walk.begin(strip + 1) - row;
  const size_t column = panel * kNR;
  const size_t vectors = panel_vectors(g.n, column);
  const size_t width = vectors * kLanes;
  const float* w = g.packed_weight + column * g.packed_k + g.k_begin * width;
  Tile tile = make_tile(g, panel, row);
  const bool prefetches = strip < walk.shares && panel + 1 < g.panel_end;
  tile.next_interval = prefetches ? walk.shares : g.k;
  tile.next_panel = prefetches ? w + (g.packed_k + strip * walk.share_steps) * width : w;
  with_tile_size<kTileRows, kTileVectors>(rows, vectors, [&]<size_t MR, size_t NV>() {
    micro_kernel<MR, NV>(g.k, g.a + row * g.lda, g.lda, w, tile);
  });
  finish_tile(g, panel, row, rows, tile);
}

// Columns [k, k + depth) of a, or what is left of them, as a call of their own.
SIMDFORMER_INLINE GemmArgs depth_part(const GemmArgs& g, size_t k, size_t depth) {
  GemmArgs part = g;
  part.a = g.a + k;
  part.k = min_size(depth, g.k - k);
  part.k_begin = g.k_begin + k;
  part.accumulate = g.accumulate || k > 0;
  part.finish = g.finish && k + part.k == g.k;
  return part;
}

// Rows of which every panel is done.
SIMDFORMER_INLINE void finish_rows(const GemmArgs& g, size_t row, size_t rows) {
  if (!g.finish || !g.norm_weight) return;
  float* c = g.c + row * g.ldc;
  layer_norm({.rows = rows,
              .cols = g.n,
              .x = c,
              .ldx = g.ldc,
              .weight = g.norm_weight,
              .bias = g.norm_bias,
              .eps = g.norm_eps,
              .y = c,
              .ldy = g.ldc});
}

// Panels outside, strips of rows inside: a panel stays in L2 while every strip passes it, and a
// strip's tile of A in L1. Chunks of k between the two loops, so that a panel's chunk stays in L1
// (128 to 256 deep; Zen 4): no gain at AVX2 or AVX-512, 4% lost at 128.
void gemm(const GemmArgs& g) {
  if (g.m == 0) return;
  const Walk walk = plan_walk(g.m, g.k, kTileRows);
  for (size_t panel = g.panel_begin; panel < g.panel_end; ++panel) {
    const bool last = panel + 1 == g.panel_end;
    for (size_t strip = 0; strip < walk.strips; ++strip) {
      gemm_tile(g, walk, panel, strip);
      const size_t row = walk.begin(strip);
      if (last) finish_rows(g, row, walk.begin(strip + 1) - row);
    }
  }
}

}  // namespace
}  // namespace simdformer

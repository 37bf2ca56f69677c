// SPDX-License-Identifier: Apache-2.0
// C = A W^T with fused epilogues (formula at GemmArgs). W is packed once into panels of NR columns,
// [n / NR][k][NR], so the micro-kernel reads it sequentially. A is read in place, with one
// broadcast per row. Each element of C is a single FMA chain in the order of k, for every tile
// shape.
#pragma once

#include "kernels/activation.inl.h"
#include "kernels/gemm_tile.inl.h"
#include "kernels/kernels.h"
#include "kernels/layer_norm.inl.h"
#include "simd/macros.h"

namespace simdformer {
namespace {

constexpr size_t kNR = kTileVectors * kLanes;

// The number of whole vectors in the panel that starts at this column.
SIMDFORMER_INLINE size_t panel_vectors(size_t n, size_t column) {
  return ceil_div(min_size(n - column, kNR), kLanes);
}

size_t packed_size(size_t n, size_t k) { return round_up(n, kLanes) * k; }

// transpose_tile for fewer rows, with zeros for the rest. With single elements, attention with 13
// keys took 0.36 us instead of 0.30 (Zen 5, head_dim 32).
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

// The tile of one panel of W and the strip of A that starts at this row.
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

// Operations that need whole rows or many registers are done here, while the tile is in L1.
SIMDFORMER_INLINE void finish_tile(const GemmArgs& g, size_t panel, size_t row, size_t rows,
                                   const Tile& tile) {
  if (!g.finish || g.activation == Activation::kIdentity) return;
  activate_rows(g.activation, rows, tile.width, tile.c, tile.ldc, tile.c, tile.ldc);
  for (size_t i = 0; g.residual && i < rows; ++i) {
    add_row(tile.width, g.residual + (row + i) * g.ldr + panel * kNR, tile.c + i * tile.ldc);
  }
}

// How a call goes through its tiles. Strips of rows have nearly equal heights (14 rows: 7 + 7, not
// 8 + 6). Each strip prefetches a share of the next panel into L2. Hardware prefetchers stop at the
// end of a page, and weights come from L3 or DRAM. Because the shares are spread over the strips,
// memory is used evenly. This improved 81% to 90% of peak at 128 rows with weights larger than L2
// (Granite Rapids, AVX-512), and 48% to 65% at 14 rows (Zen 4, AVX2). If there are more than
// kMaxShares strips, only the first ones prefetch.
struct Walk {
  static constexpr size_t kMaxShares = 16;

  size_t strips;
  size_t rows;    // per strip
  size_t taller;  // this many strips have one row more
  size_t shares;
  size_t share_steps;  // steps of k per share

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

// One panel of W times one strip of A's rows.
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

// Columns [k, k + depth) of a, or as many as exist, as a separate call.
SIMDFORMER_INLINE GemmArgs depth_part(const GemmArgs& g, size_t k, size_t depth) {
  GemmArgs part = g;
  part.a = g.a + k;
  part.k = min_size(depth, g.k - k);
  part.k_begin = g.k_begin + k;
  part.accumulate = g.accumulate || k > 0;
  part.finish = g.finish && k + part.k == g.k;
  return part;
}

// Finishes rows for which all panels are done.
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

// Panels in the outer loop, strips of rows in the inner one: a panel stays in L2 for all strips,
// and a strip's tile of A in L1. A third loop over chunks of k, which keeps a panel's chunk in L1
// (128 to 256 deep; Zen 4), had no gain at AVX2 or AVX-512, and cost 4% with chunks of 128.
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

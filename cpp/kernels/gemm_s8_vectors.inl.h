// SPDX-License-Identifier: Apache-2.0
// gemm_s8 with vectors; the sums of each group are in registers. This is the common part of
// gemm_s8_dot.inl.h, gemm_s8_signs.inl.h (AVX2 without VNNI) and gemm_s8_neon.inl.h.
#pragma once

#include "kernels/gemm_s8.inl.h"
#include "kernels/probe.inl.h"

namespace simdformer {
namespace {

constexpr size_t kS8PanelVectors = kTileVectors;

// Panels as packed by pack_weight_s8, multiplied by dot_u8s8.
struct PackedPanel {
  static constexpr size_t kRowBytes = kS8Group;  // bytes of a row of A per group
  static constexpr size_t kTogether = 1;         // rows of A that are multiplied at once

  // Bytes per group.
  static constexpr size_t size(size_t width) { return kS8Group * width; }

  SIMDFORMER_INLINE S8Panel of(const S8Panel& w, size_t) { return w; }

  // acc = the integer sums of one group.
  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                          const int8_t* SIMDFORMER_RESTRICT w,
                                          VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) acc[i][j] = VecI32::zero();
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < kS8Group; p += 4, w += NV * kLanes * 4) {
      VecI32 wv[NV];
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) wv[j] = VecI32::load(w + j * kLanes * 4);
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) {
        const VecI32 av = VecI32::broadcast(q + i * kS8Group + p);
        SIMDFORMER_UNROLL
        for (size_t j = 0; j < NV; ++j) acc[i][j] = dot_u8s8(acc[i][j], av, wv[j]);
      }
    }
  }
};

// sum += scale_a acc scale_w + minimum_a (scale_w sum_w): the sum over p of a[p] w[p], for the
// numbers that the codes represent.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_sums(const VecI32 (&acc)[MR][NV], const float* scale,
                                const float* minimum, const float* ranges, VecF32 (&sum)[MR][NV]) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    const VecF32 scale_a = VecF32::broadcast(scale[i]);
    const VecF32 minimum_a = VecF32::broadcast(minimum[i]);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      const VecF32 scale_w = VecF32::load(ranges + j * kLanes);
      const VecF32 sum_w = VecF32::load(ranges + (NV + j) * kLanes);
      sum[i][j] = fma(to_float(acc[i][j]) * scale_a, scale_w, sum[i][j]);
      sum[i][j] = fma(minimum_a, sum_w, sum[i][j]);
    }
  }
}

// Adds a group's integer sums to the float32 sums.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_group(const VecI32 (&acc)[MR][NV], size_t group, const S8Rows& a,
                                 const S8Panel& w, VecF32 (&sum)[MR][NV]) {
  add_sums(acc, a.scale + group * a.capacity, a.minimum + group * a.capacity,
           w.ranges + group * 2 * NV * kLanes, sum);
}

// Adds the outliers of all groups, after the last group. Adding them group by group cost more time
// in mispredicted branches than the products, because their numbers are small and differ (Zen 5).
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_outliers(const S8Rows& a, const S8Panel& w, VecF32 (&sum)[MR][NV]) {
  for (size_t o = 0; o < a.num_outliers; ++o) {
    VecF32 wv[NV];
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      wv[j] = VecF32::load(w.outliers + o * w.outlier_step + j * kLanes);
    }
    add_outlier(a.outliers + o * a.capacity, wv, sum);
  }
}

// The part of the next panel that a tile prefetches into L2: `bytes` with every group. With all
// weights of a model in turn and 128 rows, this was 4% faster (Zen 5).
struct S8Share {
  const int8_t* p;
  size_t bytes;

  SIMDFORMER_INLINE void prefetch() {
    for (const int8_t* end = p + bytes; p < end; p += 64) __builtin_prefetch(p, 0, kIntoL2);
  }
};

// With few strips, each would wait for a large share: 4 rows took a third longer.
constexpr size_t kLeastShares = 3;

// Per group: MR x NV integer sums and as many float sums in registers. Form: how the panel is read.
template <typename Form, size_t MR, size_t NV>
SIMDFORMER_NOINLINE void micro_kernel_s8(size_t groups, const S8Rows& a, const S8Panel& w,
                                         const Tile& tile, S8Share next) {
  VecF32 sum[MR][NV];
  start_tile(sum, tile);
  for (size_t group = 0; group < groups; ++group) {
    next.prefetch();
    VecI32 acc[MR][NV];
    Form::sum_group(a.q + group * a.capacity * Form::kRowBytes,
                    w.packed + group * Form::size(NV * kLanes), acc);
    add_group(acc, group, a, w, sum);
  }
  add_outliers(a, w, sum);
  store_tile(sum, tile);
}

SIMDFORMER_INLINE S8Panel make_panel(const GemmArgs& g, const S8Weight& w, size_t panel) {
  const size_t column = panel * kNR;
  const size_t width = panel_vectors(g.n, column) * kLanes;
  const size_t groups = ceil_div(g.packed_k, kS8Group);
  const size_t first = g.k_begin / kS8Group;
  return {.packed = w.packed + column * groups * kS8Group + g.k_begin * width,
          .ranges = w.ranges + (column * groups + first * width) * 2,
          .outliers = w.outlier_weight + column * w.num_outliers +
                      outliers_before(w.outliers, first) * width,
          .outlier_step = width};
}

// The first row of a strip. Rows that Form multiplies at once are in the same strip.
template <typename Form>
SIMDFORMER_INLINE size_t first_row(const Walk& walk, size_t strip, size_t rows) {
  if constexpr (Form::kTogether == 1) return walk.begin(strip);
  return min_size(walk.begin(strip) * Form::kTogether, rows);
}

// Quantized rows [row, row + rows) times every panel.
template <typename Form>
void gemm_s8_block(const GemmArgs& g, const S8Weight& weight, const S8Rows& a, size_t row,
                   size_t rows) {
  const Walk walk = plan_walk(ceil_div(rows, Form::kTogether), g.k, kS8TileRows / Form::kTogether);
  const size_t groups = ceil_div(g.k, kS8Group);
  Form form;
  for (size_t panel = g.panel_begin; panel < g.panel_end; ++panel) {
    const S8Panel w = form.of(make_panel(g, weight, panel), groups);
    const bool prefetches = panel + 1 < g.panel_end && walk.strips >= kLeastShares;
    const int8_t* next = prefetches ? make_panel(g, weight, panel + 1).packed : w.packed;
    const size_t share = prefetches ? round_up(ceil_div(kS8Group * kNR, walk.strips), 64) : 0;
    for (size_t strip = 0; strip < walk.strips; ++strip) {
      const size_t first = first_row<Form>(walk, strip, rows);
      const size_t count = first_row<Form>(walk, strip + 1, rows) - first;
      const Tile tile = make_tile(g, panel, row + first);
      const S8Share shared{next + strip * groups * share, share};
      with_tile_size<kS8TileRows, kTileVectors>(
          count, panel_vectors(g.n, panel * kNR), [&]<size_t MR, size_t NV>() {
            micro_kernel_s8<Form, MR, NV>(groups, a.from(first), w, tile, shared);
          });
      finish_tile(g, panel, row + first, count, tile);
    }
  }
}

}  // namespace
}  // namespace simdformer

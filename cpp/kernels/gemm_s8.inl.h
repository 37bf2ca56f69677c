// SPDX-License-Identifier: Apache-2.0
// The GEMM of gemm.inl.h with weights of s8 and activations quantised to u8 on their way in. Within
// a group of kS8Group columns products are summed in int32, exactly; a group's sum is scaled and
// added in float32, then the products of its outlier columns, group after group, and the whole goes
// through the same epilogue.
#pragma once

#include "kernels/gemm.inl.h"
#include "kernels/quantize.inl.h"

namespace simdformer {
namespace {

// A block of rows is quantised on the stack. 32 rows share each panel of weights read from L2; 32 x
// 576 bytes leave room for it in L1.
constexpr size_t kS8Rows = 32;
constexpr size_t kS8Depth = 576;
constexpr size_t kS8Groups = kS8Depth / kS8Group;
static_assert(kS8Depth % kS8Group == 0);

size_t s8_packed_size(size_t n, size_t k) { return round_up(n, kLanes) * round_up(k, kS8Group); }

size_t s8_ranges_size(size_t n, size_t k) {
  return round_up(n, kLanes) * ceil_div(k, kS8Group) * 2;
}

// One group of one output channel into lane j of a panel `width` lanes wide. Returns its sum.
SIMDFORMER_INLINE int32_t pack_s8_group(size_t n, const int8_t* weight, size_t width, size_t j,
                                        int8_t* packed) {
  int32_t sum = 0;
  for (size_t p = 0; p < kS8Group; ++p) {
    const int8_t value = p < n ? weight[p] : int8_t{0};
    packed[(p / 4 * width + j) * 4 + p % 4] = value;
    sum += value;
  }
  return sum;
}

void pack_weight_s8(const PackS8Args& a) {
  const size_t groups = ceil_div(a.k, kS8Group);
  for (size_t panel = 0; panel * kNR < a.n; ++panel) {
    const size_t column = panel * kNR;
    const size_t width = panel_vectors(a.n, column) * kLanes;
    for (size_t group = 0; group < groups; ++group) {
      const size_t k = group * kS8Group;
      int8_t* packed = a.packed + column * groups * kS8Group + k * width;
      float* ranges = a.ranges + (column * groups + group * width) * 2;
      for (size_t j = 0; j < width; ++j) {
        const bool exists = column + j < a.n;
        const size_t row = exists ? column + j : 0;
        const size_t cols = exists ? min_size(kS8Group, a.k - k) : 0;
        const int32_t sum = pack_s8_group(cols, a.weight + row * a.k + k, width, j, packed);
        ranges[j] = exists ? a.scale[row * groups + group] : 0.0f;
        ranges[width + j] = ranges[j] * static_cast<float>(sum);
      }
    }
  }
}

// What a tile reads of A: its rows as they are and quantised, from the first group of this call on.
struct S8Rows {
  const float* x;
  size_t ldx;
  const uint8_t* q;
  const float* scale;
  const float* minimum;
};

// What a tile reads of W: one panel, from the first group of this call on.
struct S8Panel {
  const int8_t* packed;
  const float* ranges;
  const float* outliers;  // the panel's columns of all outlier weights
  const uint32_t* outlier_begin;
  const uint32_t* outlier_place;
};

// acc = the integer sums of one group.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                 const int8_t* SIMDFORMER_RESTRICT w, VecI32 (&acc)[MR][NV]) {
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
      const VecI32 av = VecI32::broadcast(q + i * kS8Depth + p);
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) acc[i][j] = dot_u8s8(acc[i][j], av, wv[j]);
    }
  }
}

// sum += scale_a acc scale_w + minimum_a (scale_w sum_w), which is sum_p a[p] w[p] of what the
// codes stand for.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_group(const VecI32 (&acc)[MR][NV], const float* scale,
                                 const float* minimum, const float* ranges, VecF32 (&sum)[MR][NV]) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    const VecF32 scale_a = VecF32::broadcast(scale[i * kS8Groups]);
    const VecF32 minimum_a = VecF32::broadcast(minimum[i * kS8Groups]);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) {
      const VecF32 scale_w = VecF32::load(ranges + j * kLanes);
      const VecF32 sum_w = VecF32::load(ranges + (NV + j) * kLanes);
      sum[i][j] = fma(to_float(acc[i][j]) * scale_a, scale_w, sum[i][j]);
      sum[i][j] = fma(minimum_a, sum_w, sum[i][j]);
    }
  }
}

// sum += x w of one outlier column.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_outlier(const float* x, size_t ldx, const float* w,
                                   VecF32 (&sum)[MR][NV]) {
  VecF32 wv[NV];
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) wv[j] = VecF32::load(w + j * kLanes);
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    const VecF32 xv = VecF32::broadcast(x[i * ldx]);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) sum[i][j] = fma(xv, wv[j], sum[i][j]);
  }
}

// Per group: MR x NV integer and as many float sums in registers.
template <size_t MR, size_t NV>
SIMDFORMER_NOINLINE void micro_kernel_s8(size_t groups, const S8Rows& a, const S8Panel& w,
                                         const Tile& tile) {
  VecF32 sum[MR][NV];
  start_tile(sum, tile);
  for (size_t group = 0; group < groups; ++group) {
    VecI32 acc[MR][NV];
    sum_group(a.q + group * kS8Group, w.packed + group * kS8Group * NV * kLanes, acc);
    add_group(acc, a.scale + group, a.minimum + group, w.ranges + group * 2 * NV * kLanes, sum);
    if (!w.outlier_begin) continue;
    for (uint32_t o = w.outlier_begin[group]; o < w.outlier_begin[group + 1]; ++o) {
      add_outlier(a.x + group * kS8Group + w.outlier_place[o], a.ldx, w.outliers + o * NV * kLanes,
                  sum);
    }
  }
  store_tile(sum, tile);
}

SIMDFORMER_INLINE S8Outliers outliers_from(const S8Outliers& outliers, size_t group) {
  return {outliers.begin ? outliers.begin + group : nullptr, outliers.place};
}

SIMDFORMER_INLINE S8Panel make_panel(const GemmArgs& g, const S8Weight& w, size_t panel) {
  const size_t column = panel * kNR;
  const size_t width = panel_vectors(g.n, column) * kLanes;
  const size_t groups = ceil_div(g.packed_k, kS8Group);
  const size_t first = g.k_begin / kS8Group;
  const S8Outliers outliers = outliers_from(w.outliers, first);
  return {.packed = w.packed + column * groups * kS8Group + g.k_begin * width,
          .ranges = w.ranges + (column * groups + first * width) * 2,
          .outliers = w.outlier_weight + column * w.num_outliers,
          .outlier_begin = outliers.begin,
          .outlier_place = outliers.place};
}

// Quantised rows [row, row + rows) against every panel.
void gemm_s8_block(const GemmArgs& g, const S8Weight& weight, const S8Rows& a, size_t row,
                   size_t rows) {
  const size_t strips = ceil_div(rows, kS8TileRows);
  const size_t groups = ceil_div(g.k, kS8Group);
  for (size_t panel = g.panel_begin; panel < g.panel_end; ++panel) {
    const S8Panel w = make_panel(g, weight, panel);
    for (size_t strip = 0; strip < strips; ++strip) {
      const size_t first = strip * rows / strips;
      const size_t count = (strip + 1) * rows / strips - first;
      const S8Rows part{a.x + first * a.ldx, a.ldx, a.q + first * kS8Depth,
                        a.scale + first * kS8Groups, a.minimum + first * kS8Groups};
      const Tile tile = make_tile(g, panel, row + first);
      with_tile_size<kS8TileRows, kTileVectors>(
          count, panel_vectors(g.n, panel * kNR),
          [&]<size_t MR, size_t NV>() { micro_kernel_s8<MR, NV>(groups, part, w, tile); });
      finish_tile(g, panel, row + first, count, tile);
    }
  }
}

void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  alignas(64) uint8_t q[kS8Rows * kS8Depth];
  float scale[kS8Rows * kS8Groups];
  float minimum[kS8Rows * kS8Groups];
  for (size_t row = 0; row < g.m; row += kS8Rows) {
    const size_t rows = min_size(kS8Rows, g.m - row);
    for (size_t k = 0; k < g.k; k += kS8Depth) {
      GemmArgs part = g;
      part.k = min_size(kS8Depth, g.k - k);
      part.k_begin = g.k_begin + k;
      part.accumulate = g.accumulate || k > 0;
      part.finish = g.finish && k + part.k == g.k;
      const float* x = g.a + row * g.lda + k;
      quantize_rows({.rows = rows,
                     .cols = part.k,
                     .x = x,
                     .ldx = g.lda,
                     .outliers = outliers_from(w.outliers, part.k_begin / kS8Group),
                     .q = q,
                     .ldq = kS8Depth,
                     .scale = scale,
                     .minimum = minimum,
                     .lds = kS8Groups});
      gemm_s8_block(part, w, {x, g.lda, q, scale, minimum}, row, rows);
    }
    finish_rows(g, row, rows);
  }
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The GEMM of gemm.inl.h with s8 weights and activations that are quantized to u8 on the way. This
// is the common part of gemm_s8_vectors.inl.h and gemm_s8_amx.inl.h (tiles). Within a group of
// kS8Group columns, products are summed exactly in int32. Then, for every kS8Depth columns, the
// scaled sums of groups and the products of minima and outlier columns are added in float32. The
// epilogue is the same as in gemm.inl.h.
#pragma once

#include "kernels/gemm.inl.h"
#include "kernels/quantize.inl.h"

namespace simdformer {
namespace {

// Columns that are quantized at a time.
constexpr size_t kS8Depth = 384;
static_assert(kS8Depth % kS8Group == 0);

size_t s8_packed_size(size_t n, size_t k) { return round_up(n, kLanes) * round_up(k, kS8Group); }

size_t s8_ranges_size(size_t n, size_t k) {
  return round_up(n, kLanes) * ceil_div(k, kS8Group) * 2;
}

// Packs one group of one output channel into lane j of a panel with `width` lanes. Returns its sum.
template <S8Layout Layout>
SIMDFORMER_INLINE int32_t pack_s8_group(size_t n, const int8_t* weight, size_t width, size_t j,
                                        int8_t* packed) {
  int32_t sum = 0;
  for (size_t p = 0; p < kS8Group; ++p) {
    const int8_t value = p < n ? weight[p] : int8_t{0};
    packed[(p / Layout.piece * width + j) * Layout.piece + p % Layout.piece] =
        static_cast<int8_t>(value ^ Layout.flip);
    sum += value;
  }
  return sum;
}

// pack_weight_s8 with panels of at most `vectors` vectors.
template <S8Layout Layout>
SIMDFORMER_INLINE void pack_s8_panels(const PackS8Args& a, size_t vectors) {
  const size_t groups = ceil_div(a.k, kS8Group);
  for (size_t column = 0; column < a.n; column += vectors * kLanes) {
    const size_t width = min_size(vectors, ceil_div(a.n - column, kLanes)) * kLanes;
    for (size_t group = 0; group < groups; ++group) {
      const size_t k = group * kS8Group;
      int8_t* packed = a.packed + column * groups * kS8Group + k * width;
      float* ranges = a.ranges + (column * groups + group * width) * 2;
      for (size_t j = 0; j < width; ++j) {
        const bool exists = column + j < a.n;
        const size_t row = exists ? column + j : 0;
        const size_t cols = exists ? min_size(kS8Group, a.k - k) : 0;
        const int32_t sum = pack_s8_group<Layout>(cols, a.weight + row * a.k + k, width, j, packed);
        ranges[j] = exists ? a.scale[row * groups + group] : 0.0f;
        ranges[width + j] = ranges[j] * static_cast<float>(sum);
      }
    }
  }
}

// The input of a tile from A, starting with the first group of this call: quantized rows, and their
// values in the outlier columns in float32.
struct S8Rows {
  const float* outliers;  // (num_outliers, capacity)
  size_t num_outliers;
  const uint8_t* q;  // (groups, kS8Group / piece, capacity, piece)
  size_t piece;
  const float* scale;  // (groups, capacity)
  const float* minimum;
  size_t capacity;

  S8Rows from(size_t row) const {
    S8Rows rows = *this;
    rows.outliers += row;
    rows.q += row * piece;
    rows.scale += row;
    rows.minimum += row;
    return rows;
  }
};

// The input of a tile from W: one panel, starting with the first group of this call.
struct S8Panel {
  const int8_t* packed;
  const float* ranges;
  const float* outliers;  // the panel's columns of the outlier weights, with stride outlier_step
  size_t outlier_step;
};

// The number of outliers before a group.
SIMDFORMER_INLINE size_t outliers_before(const S8Outliers& outliers, size_t group) {
  return outliers.begin ? outliers.begin[group] : 0;
}

// sum += x w for one outlier column.
template <size_t MR, size_t NV>
SIMDFORMER_INLINE void add_outlier(const float* x, const VecF32 (&wv)[NV], VecF32 (&sum)[MR][NV]) {
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < MR; ++i) {
    const VecF32 xv = VecF32::broadcast(x[i]);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j) sum[i][j] = fma(xv, wv[j], sum[i][j]);
  }
}

// Copies the outlier columns of g's rows [row, row + rows) to values: (count, capacity). Returns
// their number. If every tile read them in place, each value would need a cache line of L1 (AMX: a
// third more time). Rows are adjacent, because their addresses then differ by constants.
SIMDFORMER_INLINE size_t gather_outliers(const GemmArgs& g, const S8Outliers& outliers, size_t row,
                                         size_t rows, size_t capacity, float* values) {
  const size_t group = g.k_begin / kS8Group;
  const size_t first = outliers_before(outliers, group);
  const size_t count = outliers_before(outliers, group + ceil_div(g.k, kS8Group)) - first;
  for (size_t o = 0; o < count; ++o) {
    const float* x = g.a + row * g.lda + (outliers.column[first + o] - g.k_begin);
    for (size_t i = 0; i < rows; ++i) values[o * capacity + i] = x[i * g.lda];
  }
  return count;
}

// Calls multiply(args, a, row, rows) for every block of at most Rows rows and kS8Depth columns,
// quantized on the stack, with Piece adjacent codes of a row.
template <size_t Rows, size_t Piece, typename Multiply>
SIMDFORMER_INLINE void for_each_s8_block(const GemmArgs& g, const S8Weight& w,
                                         const Multiply& multiply) {
  constexpr size_t kGroups = kS8Depth / kS8Group;
  alignas(64) uint8_t q[Rows * kS8Depth];
  float scale[Rows * kGroups];
  float minimum[Rows * kGroups];
  float outlier_values[Rows * kS8MaxOutliers];
  for (size_t row = 0; row < g.m; row += Rows) {
    const size_t rows = min_size(Rows, g.m - row);
    for (size_t k = 0; k < g.k; k += kS8Depth) {
      const GemmArgs part = depth_part(g, k, kS8Depth);
      quantize_in_pieces<Piece>({.rows = rows,
                                 .cols = part.k,
                                 .x = part.a + row * g.lda,
                                 .ldx = g.lda,
                                 .kept = w.outliers.kept ? w.outliers.kept + part.k_begin : nullptr,
                                 .rotated = w.rotated,
                                 .capacity = Rows,
                                 .q = q,
                                 .scale = scale,
                                 .minimum = minimum});
      const size_t num_outliers =
          gather_outliers(part, w.outliers, row, rows, Rows, outlier_values);
      multiply(part, S8Rows{outlier_values, num_outliers, q, Piece, scale, minimum, Rows}, row,
               rows);
    }
    finish_rows(g, row, rows);
  }
}

}  // namespace
}  // namespace simdformer

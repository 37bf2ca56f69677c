// SPDX-License-Identifier: Apache-2.0
// softmax(scale Q K^T) V for one head of one sequence, as two GEMMs on packed K and V with a strip
// of scores between them. The strip is kept short enough to stay in L2, so no online rescaling is
// needed and scratch grows with num_keys, never with its square.
#pragma once

#include "kernels/gemm.inl.h"
#include "kernels/kernels.h"
#include "kernels/softmax.inl.h"

namespace simdformer {
namespace {

// Rows of scores worked on at once: 4 register tiles reuse each panel of K and V from L1.
constexpr size_t kStripRows = 4 * kTileRows;

struct AttentionScratch {
  float* packed_k;
  float* packed_v;
  float* scores;
  size_t ld_scores;
  size_t size;
};

// Rows whose stride is a multiple of 4096 bytes would share one cache set.
SIMDFORMER_INLINE size_t padded_stride(size_t cols) {
  const size_t stride = round_up(cols, 16);
  return stride % 1024 == 0 ? stride + 16 : stride;
}

SIMDFORMER_INLINE AttentionScratch layout_scratch(size_t num_keys, size_t head_dim,
                                                  size_t value_dim, float* scratch) {
  const size_t k_size = round_up(packed_size(num_keys, head_dim), 16);
  const size_t v_size = round_up(packed_size(value_dim, num_keys), 16);
  const size_t ld = padded_stride(num_keys);
  return {.packed_k = scratch,
          .packed_v = scratch + k_size,
          .scores = scratch + k_size + v_size,
          .ld_scores = ld,
          .size = k_size + v_size + kStripRows * ld};
}

size_t attention_scratch(size_t num_keys, size_t head_dim, size_t value_dim) {
  return layout_scratch(num_keys, head_dim, value_dim, nullptr).size;
}

// v: (num_keys, value_dim) -> panels [value_dim / NR][num_keys][NR], as pack_weight of v's
// transpose.
SIMDFORMER_INLINE void pack_values(const AttentionArgs& a, float* packed) {
  for (size_t column = 0; column < a.value_dim; column += kNR) {
    const size_t padded = panel_vectors(a.value_dim, column) * kLanes;
    const size_t width = min_size(padded, a.value_dim - column);
    float* dst = packed + column * a.num_keys;
    for (size_t j = 0; j < a.num_keys; ++j, dst += padded) {
      const float* src = a.v + j * a.ldv + column;
      size_t c = 0;
      for (; c + kLanes <= width; c += kLanes) VecF32::load(src + c).store(dst + c);
      if (c < padded) VecF32::load(src + c, width - c).store(dst + c);
    }
  }
}

SIMDFORMER_INLINE void attend_strip(const AttentionArgs& a, const AttentionScratch& s, size_t row,
                                    size_t rows) {
  gemm({.m = rows,
        .n = a.num_keys,
        .k = a.head_dim,
        .a = a.q + row * a.ldq,
        .lda = a.ldq,
        .packed_weight = s.packed_k,
        .packed_k = a.head_dim,
        .panel_begin = 0,
        .panel_end = ceil_div(a.num_keys, kNR),
        .c = s.scores,
        .ldc = s.ld_scores});
  float rsum[kStripRows];
  for (size_t i = 0; i < rows; ++i) {
    float* scores = s.scores + i * s.ld_scores;
    rsum[i] = 1.0f / exp_row_sum(a.num_keys, a.softmax_scale, scores, scores);
  }
  float* out = a.out + row * a.ldo;
  gemm({.m = rows,
        .n = a.value_dim,
        .k = a.num_keys,
        .a = s.scores,
        .lda = s.ld_scores,
        .packed_weight = s.packed_v,
        .packed_k = a.num_keys,
        .panel_begin = 0,
        .panel_end = ceil_div(a.value_dim, kNR),
        .c = out,
        .ldc = a.ldo});
  // Dividing the narrow output instead of the wide row of weights.
  for (size_t i = 0; i < rows; ++i) {
    scale_row(a.value_dim, rsum[i], out + i * a.ldo, out + i * a.ldo);
  }
}

void attention(const AttentionArgs& a) {
  if (a.num_keys == 0) {
    for (size_t i = 0; i < a.num_queries; ++i) {
      map_row(a.value_dim, a.out + i * a.ldo, a.out + i * a.ldo,
              [](VecF32) { return VecF32::zero(); });
    }
    return;
  }
  const AttentionScratch s = layout_scratch(a.num_keys, a.head_dim, a.value_dim, a.scratch);
  pack_weight(a.num_keys, a.head_dim, a.k, a.ldk, 0, ceil_div(a.num_keys, kNR), s.packed_k);
  pack_values(a, s.packed_v);
  for (size_t row = 0; row < a.num_queries; row += kStripRows) {
    attend_strip(a, s, row, min_size(kStripRows, a.num_queries - row));
  }
}

}  // namespace
}  // namespace simdformer

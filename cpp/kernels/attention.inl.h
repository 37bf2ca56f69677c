// SPDX-License-Identifier: Apache-2.0
// Attention of one head (formula at AttentionArgs), as two GEMMs on packed K and V, with a strip of
// scores between them. A strip of whole rows is short enough to stay in L2, so no online rescaling
// is needed, and scratch grows with num_keys, never with its square.
#pragma once

#include "kernels/attention_bias.inl.h"
#include "kernels/attention_scores.inl.h"
#include "kernels/gemm.inl.h"
#include "kernels/kernels.h"
#include "kernels/softmax.inl.h"

namespace simdformer {
namespace {

// Rows of scores per strip: 4 register tiles reuse each panel of K and V from L1.
constexpr size_t kStripRows = 4 * kTileRows;

// K and V packed for capacity keys, and a strip of scores.
struct Operands {
  const float* packed_k;
  const float* packed_v;
  size_t capacity;
  float* scores;
  size_t ld_scores;
  bool finite_v;  // no NaN or inf in v: 0 * v is 0
  AdditiveOperands additive;
};

// Rows with a stride that is a multiple of 4096 bytes would share one cache set.
SIMDFORMER_INLINE size_t scores_stride(size_t num_keys) {
  const size_t stride = round_up(round_up(num_keys, kNR), 16);  // whole panels are written
  return stride % 1024 == 0 ? stride + 16 : stride;
}

size_t attention_scratch(size_t num_keys, size_t head_dim, size_t value_dim) {
  const size_t k_size = round_up(packed_size(num_keys, head_dim), 16);
  const size_t additive = k_size + round_up(num_keys, 16) + round_up(head_dim, 16);
  return k_size + round_up(packed_size(value_dim, num_keys), 16) +
         kStripRows * scores_stride(num_keys) + additive;
}

// The last part of the scratch, which other scores do not use.
SIMDFORMER_INLINE AdditiveOperands additive_operands(const AttentionArgs& a, const Operands& o) {
  float* exp_k = o.scores + kStripRows * o.ld_scores;
  float* near = exp_k + round_up(packed_size(a.num_keys, a.head_dim), 16);
  return {.packed_k = o.packed_k,
          .keys = o.capacity,
          .exp_k = exp_k,
          .near = near,
          .exp_q = near + round_up(a.num_keys, 16)};
}

void pack_keys(size_t capacity, size_t head_dim, size_t begin, size_t end, const float* k,
               size_t ldk, float* packed) {
  for (size_t j = begin; j < end; ++j) {
    const size_t column = j / kNR * kNR;
    const size_t width = panel_vectors(capacity, column) * kLanes;
    float* dst = packed + column * head_dim + (j - column);
    for (size_t p = 0; p < head_dim; ++p) dst[p * width] = k[(j - begin) * ldk + p];
  }
}

// Panels [value_dim / NR][capacity][NR]: the same as pack_weight of v's transpose.
void pack_values(size_t capacity, size_t value_dim, size_t begin, size_t end, const float* v,
                 size_t ldv, float* packed) {
  for (size_t column = 0; column < value_dim; column += kNR) {
    const size_t padded = panel_vectors(value_dim, column) * kLanes;
    const size_t width = min_size(padded, value_dim - column);
    float* dst = packed + column * capacity + begin * padded;
    for (size_t j = begin; j < end; ++j, dst += padded) {
      const float* src = v + (j - begin) * ldv + column;
      size_t c = 0;
      for (; SIMDFORMER_FITS(c, kLanes, width); c += kLanes) VecF32::load(src + c).store(dst + c);
      if (c < padded) VecF32::load(src + c, width - c).store(dst + c);
    }
  }
}

SIMDFORMER_INLINE bool has_nan(size_t n, const float* x) {
  const VecF32 one = VecF32::broadcast(1.0f);
  return sum_row(n, x, [&](VecF32 v) { return select(is_nan(v), one, VecF32::zero()); }) > 0.0f;
}

SIMDFORMER_INLINE Operands prepare(const AttentionArgs& a) {
  const size_t k_size = round_up(packed_size(a.num_keys, a.head_dim), 16);
  const size_t v_size = round_up(packed_size(a.value_dim, a.num_keys), 16);
  Operands o{.packed_k = a.packed_k,
             .packed_v = a.packed_v,
             .capacity = a.packed_capacity,
             .scores = a.scratch + k_size + v_size,
             .ld_scores = scores_stride(a.num_keys),
             .finite_v = true,
             .additive = {}};
  if (!a.packed_k) {
    pack_weight(a.num_keys, a.head_dim, a.k, a.ldk, 0, ceil_div(a.num_keys, kNR), a.scratch);
    pack_values(a.num_keys, a.value_dim, 0, a.num_keys, a.v, a.ldv, a.scratch + k_size);
    o.packed_k = a.scratch;
    o.packed_v = a.scratch + k_size;
    o.capacity = a.num_keys;
    if (a.score == Score::kAdditive) {
      o.additive = additive_operands(a, o);
      if (!a.exact_tanh) prepare_additive(a.head_dim, o.additive);
    }
    o.finite_v = !has_masks(a) || all_finite(o.packed_v, packed_size(a.value_dim, a.num_keys));
  }
  return o;
}

SIMDFORMER_INLINE void raw_scores(const AttentionArgs& a, const Operands& o, size_t row,
                                  size_t rows, KeyRange keys) {
  if (a.score == Score::kDot) {
    gemm({.m = rows,
          .n = o.capacity,
          .k = a.head_dim,
          .a = a.q + row * a.ldq,
          .lda = a.ldq,
          .packed_weight = o.packed_k,
          .packed_k = a.head_dim,
          .panel_begin = keys.begin / kNR,
          .panel_end = ceil_div(keys.end, kNR),
          .c = o.scores,
          .ldc = o.ld_scores});
    return;
  }
  for (size_t i = 0; i < rows; ++i) {
    const float* q = a.q + (row + i) * a.ldq;
    float* scores = o.scores + i * o.ld_scores;
    if (a.score == Score::kAdditive) {
      additive_scores(a, o.additive, keys.begin, keys.end, q, scores);
    } else {
      distance_scores(a, keys.begin, keys.end, o.capacity, q, o.packed_k, scores);
    }
  }
}

// Biased scores of one row -> exponentials. Returns the factor of the output: 1 / sum, or 0 for a
// row without a key, whose exponentials are 0.
SIMDFORMER_INLINE float exp_row_scores(const AttentionArgs& a, float max_value, size_t n,
                                       float* x) {
  if (max_value == -kInfinity && has_masks(a) && !has_nan(n, x)) {
    fill_row(n, 0.0f, x);
    return 0.0f;
  }
  const float scale = scales_first(a) ? 1.0f : a.softmax_scale;
  return 1.0f / exp_row_sum(n, scale, max_value, x, x);
}

// The same for a row whose q k^T may be out of float32's range although softmax_scale q k^T is not:
// the query is scaled first.
SIMDFORMER_NOINLINE float scaled_row_scores(const AttentionArgs& a, Operands o, size_t row,
                                            size_t strip_row, KeyRange keys) {
  AttentionArgs scaled = a;
  // In the space for the operands of the additive score, which is larger than a query.
  float* q = o.scores + kStripRows * o.ld_scores;
  scale_row(a.head_dim, a.softmax_scale, a.q + row * a.ldq, q);
  scaled.q = q;
  scaled.ldq = 0;
  scaled.softmax_scale = 1.0f;
  o.scores += strip_row * o.ld_scores;
  raw_scores(scaled, o, row, 1, keys);
  bias_row(scaled, row, keys, o.scores);
  float* x = o.scores + keys.begin;
  return 1.0f / exp_row_sum(keys.size(), 1.0f, max_row(keys.size(), x), x, x);
}

// Whether later steps hide that the product was out of float32's range.
SIMDFORMER_INLINE bool hides_overflow(const AttentionArgs& a) {
  return a.softcap > 0 || (a.weights && a.weights_stage != WeightsStage::kSoftmax);
}

// Whether q k^T of a row, or a partial sum of it, may have been out of float32's range.
SIMDFORMER_INLINE bool may_overflow(const AttentionArgs& a, size_t row, float largest, float rsum) {
  constexpr float kFar = 0x1p118f;  // the sum of 2^10 terms of this size is in range
  if (a.score != Score::kDot) return false;
  if (rsum != rsum) return true;
  const bool far = !(largest > -kFar && largest < kFar);
  return far && (rsum != 0.0f || sees_key(a, row));
}

// Softmax of a strip without its final division; rsum receives the factors. There are two sweeps
// over the rows, because the latency of a row's maximum is hidden by finding those of other rows.
SIMDFORMER_NOINLINE void softmax_strip(const AttentionArgs& a, const Operands& o, size_t row,
                                       size_t rows, KeyRange keys, float* rsum) {
  float* x = o.scores + keys.begin;
  bool overflowed[kStripRows] = {};
  for (size_t i = 0; hides_overflow(a) && i < rows; ++i) {
    overflowed[i] = a.score == Score::kDot && !all_finite(x + i * o.ld_scores, keys.size()) &&
                    sees_key(a, row + i);
  }
  if (scales_first(a) || has_masks(a)) {
    for (size_t i = 0; i < rows; ++i) bias_row(a, row + i, keys, o.scores + i * o.ld_scores);
  }
  float largest[kStripRows];
  for (size_t i = 0; i < rows; ++i) largest[i] = max_row(keys.size(), x + i * o.ld_scores);
  for (size_t i = 0; i < rows; ++i) {
    rsum[i] = exp_row_scores(a, largest[i], keys.size(), x + i * o.ld_scores);
    if (overflowed[i] || may_overflow(a, row + i, largest[i], rsum[i])) {
      rsum[i] = scaled_row_scores(a, o, row + i, i, keys);
    }
  }
}

SIMDFORMER_INLINE void write_weights(const AttentionArgs& a, size_t row, KeyRange keys, float rsum,
                                     const float* x) {
  float* weights = a.weights + row * a.ld_weights;
  const bool softmax = a.weights_stage == WeightsStage::kSoftmax;
  const float outside = !softmax ? -kInfinity : (rsum == 0.0f ? a.masked_value : 0.0f);
  fill_row(keys.begin, outside, weights);
  fill_row(a.num_keys - keys.end, outside, weights + keys.end);
  if (!softmax) return;
  if (rsum == 0.0f) return fill_row(keys.size(), a.masked_value, weights + keys.begin);
  scale_row(keys.size(), rsum, x + keys.begin, weights + keys.begin);
}

// out = sum of x[j] v[j] over keys with nonzero weight, for v with NaN or inf at masked keys.
SIMDFORMER_INLINE void sum_weighted_keys(const AttentionArgs& a, KeyRange keys, const float* x,
                                         float* out) {
  fill_row(a.value_dim, 0.0f, out);
  for (size_t j = keys.begin; j < keys.end; ++j) {
    if (x[j] == 0.0f) continue;
    const VecF32 weight = VecF32::broadcast(x[j]);
    update_row(a.value_dim, a.v + j * a.ldv, out,
               [&](VecF32 sum, VecF32 v) { return fma(weight, v, sum); });
  }
}

SIMDFORMER_INLINE void weighted_values(const AttentionArgs& a, const Operands& o, size_t row,
                                       size_t rows, KeyRange keys) {
  float* out = a.out + row * a.ldo;
  if (!o.finite_v) {
    for (size_t i = 0; i < rows; ++i) {
      sum_weighted_keys(a, keys, o.scores + i * o.ld_scores, out + i * a.ldo);
    }
    return;
  }
  gemm({.m = rows,
        .n = a.value_dim,
        .k = keys.size(),
        .a = o.scores + keys.begin,
        .lda = o.ld_scores,
        .packed_weight = o.packed_v,
        .packed_k = o.capacity,
        .k_begin = keys.begin,
        .panel_end = ceil_div(a.value_dim, kNR),
        .c = out,
        .ldc = a.ldo});
}

SIMDFORMER_INLINE void attend_strip(const AttentionArgs& a, const Operands& o, size_t row,
                                    size_t rows) {
  // Starts with whole pairs of vectors from column 0, so that the lanes that a row's sums are split
  // into do not depend on the other rows of the strip.
  const size_t first = visible_keys(a, row).begin / (2 * kLanes) * (2 * kLanes);
  KeyRange keys{first, max_size(first, visible_keys(a, row + rows - 1).end)};
  if (a.weights && a.weights_stage != WeightsStage::kSoftmax) keys = {0, a.num_keys};
  raw_scores(a, o, row, rows, keys);
  float rsum[kStripRows];
  softmax_strip(a, o, row, rows, keys, rsum);
  for (size_t i = 0; a.weights && i < rows; ++i) {
    write_weights(a, row + i, keys, rsum[i], o.scores + i * o.ld_scores);
  }
  weighted_values(a, o, row, rows, keys);
  // Divides the output, which is narrower than the row of weights.
  for (size_t i = 0; i < rows; ++i) {
    float* out = a.out + (row + i) * a.ldo;
    if (rsum[i] == 0.0f) {
      fill_row(a.value_dim, a.masked_value, out);
    } else {
      scale_row(a.value_dim, rsum[i], out, out);
    }
  }
}

void attention(const AttentionArgs& a) {
  if (a.num_keys == 0) {
    for (size_t i = 0; i < a.num_queries; ++i) {
      fill_row(a.value_dim, a.masked_value, a.out + i * a.ldo);
    }
    return;
  }
  const Operands o = prepare(a);
  for (size_t row = 0; row < a.num_queries; row += kStripRows) {
    attend_strip(a, o, row, min_size(kStripRows, a.num_queries - row));
  }
}

}  // namespace
}  // namespace simdformer

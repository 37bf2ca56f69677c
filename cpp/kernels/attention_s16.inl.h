// SPDX-License-Identifier: Apache-2.0
// Attention of one head, used with int8 linear layers (formula at Kernels::attention_s16): the
// strips of attention.inl.h with both products in s16. With VNNI this is as fast as bfloat16 and
// more precise. Each lane contains a pair of numbers: from the two halves of a row of q or k, and
// from the two halves of the keys in scores and v.
#pragma once

#include "kernels/attention.inl.h"
#include "kernels/attention_s16_softmax.inl.h"
#include "kernels/gemm_s16.inl.h"
#include "kernels/quantize.inl.h"

namespace simdformer {
namespace {

// No overflow of int32: the difference of two scores is at most 2 x 2047^2 x kS16HeadDim, and a sum
// of values 8192 x 2047 x 2 kS16Keys.
constexpr float kS16Steps = 2047.0f;
constexpr size_t kS16HeadDim = 256;
constexpr size_t kS16Keys = 64;  // pairs of keys per sum

// Compares bits of floats as integers; infinity and NaN are larger than all other numbers.
float largest_magnitude(size_t rows, size_t cols, const float* x, size_t ldx) {
  VecI32 even = VecI32::zero();
  VecI32 odd = VecI32::zero();
  for (size_t i = 0; i < rows; ++i, x += ldx) {
    size_t j = 0;
    for (; SIMDFORMER_FITS(j, 2 * kLanes, cols); j += 2 * kLanes) {
      even = max(as_ints(abs(VecF32::load(x + j))), even);
      odd = max(as_ints(abs(VecF32::load(x + j + kLanes))), odd);
    }
    for (; j < cols; j += kLanes) even = max(as_ints(abs(load_first(x + j, cols - j))), even);
  }
  const int32_t bits = reduce_max(max(even, odd));
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  return largest;
}

// The size of a step if the largest number is kS16Steps steps; not finite if that number is not.
SIMDFORMER_INLINE float step_of(float largest) { return usable_step(largest * (1.0f / kS16Steps)); }

// pairs[i] = (x[i], x[half + i]) in steps. Whole vectors are written.
SIMDFORMER_INLINE void pair_halves(size_t n, const float* x, float step, float* pairs) {
  const size_t half = half_of(n);
  const VecF32 inverse = VecF32::broadcast(1.0f / step);
  for (size_t i = 0; i < half; i += kLanes) {
    const VecF32 low = load_first(x + i, half - i);
    const VecF32 high = load_first(x + half + i, n - min_size(n, half + i));
    as_floats(pair_s16(low * inverse, high * inverse)).store(pairs + i);
  }
}

// Panels of v's columns; each row contains the pairs (v[j], v[half + j]) of two keys.
SIMDFORMER_INLINE void pack_value_pairs(const AttentionArgs& a, float step, float* packed) {
  const size_t half = half_of(a.num_keys);
  const VecF32 inverse = VecF32::broadcast(1.0f / step);
  for (size_t column = 0; column < a.value_dim; column += kNR) {
    const size_t width = panel_vectors(a.value_dim, column) * kLanes;
    float* to = packed + column * half;
    for (size_t j = 0; j < half; ++j, to += width) {
      const float* low = a.v + j * a.ldv + column;
      const bool both = half + j < a.num_keys;
      for (size_t c = 0; c < width; c += kLanes) {
        const size_t left = a.value_dim - column - c;
        const VecF32 high = both ? load_first(low + half * a.ldv + c, left) : VecF32::zero();
        as_floats(pair_s16(load_first(low + c, left) * inverse, high * inverse)).store(to + c);
      }
    }
  }
}

// The scratch, as floats that contain pairs, and the steps of Q, K and V.
struct OperandsS16 {
  size_t half_dim;
  size_t half_keys;
  size_t ld_q;
  size_t ld_scores;
  size_t ld_sums;
  float* packed_k;  // panels of (num_keys, half_dim) pairs
  float* packed_v;  // panels of (value_dim, half_keys) pairs
  float* q;         // (kStripRows, ld_q)
  float* scores;    // (kStripRows, ld_scores) int32, then the pairs of exponentials
  float* sums;      // (kStripRows, ld_sums)
  float* rows;      // the pairs of k before they are packed: (num_keys, ld_q)
  float step_q;
  float step_k;
  float step_v;
  float score_unit;  // the size of a score's unit
  bool finite_bias;
};

// Divides the scratch into parts. Returns its size.
SIMDFORMER_INLINE size_t place_s16(size_t num_keys, size_t head_dim, size_t value_dim,
                                   float* scratch, OperandsS16& o) {
  o.half_dim = half_of(head_dim);
  o.half_keys = half_of(num_keys);
  o.ld_q = round_up(o.half_dim, 16);
  o.ld_scores = scores_stride(num_keys);
  o.ld_sums = round_up(value_dim, 16);
  size_t used = 0;
  const auto place = [&](size_t floats) {
    float* p = scratch + used;
    used += round_up(floats, 16);
    return p;
  };
  o.packed_k = place(packed_size(num_keys, o.half_dim));
  o.packed_v = place(packed_size(value_dim, o.half_keys));
  o.q = place(kStripRows * o.ld_q);
  o.scores = place(kStripRows * o.ld_scores);
  o.sums = place(kStripRows * o.ld_sums);
  o.rows = place(num_keys * o.ld_q);
  return used;
}

size_t attention_s16_scratch(size_t num_keys, size_t head_dim, size_t value_dim) {
  OperandsS16 o;
  const size_t size = place_s16(num_keys, head_dim, value_dim, nullptr, o);
  return max_size(size, attention_scratch(num_keys, head_dim, value_dim));
}

// sums[i, :] = exponentials . v in steps of v, over all keys.
SIMDFORMER_INLINE void sum_values(const AttentionArgs& a, const OperandsS16& o, size_t rows) {
  for (size_t k = 0; k < o.half_keys; k += kS16Keys) {
    gemm_s16({.m = rows,
              .n = a.value_dim,
              .k = min_size(kS16Keys, o.half_keys - k),
              .a = o.scores + k,
              .lda = o.ld_scores,
              .w = o.packed_v,
              .packed_k = o.half_keys,
              .k_begin = k,
              .sums = k == 0 ? SumsS16::kFirst : SumsS16::kAdd,
              .c = o.sums,
              .ldc = o.ld_sums});
  }
}

// Two sweeps, as in softmax_strip: scores -> pairs of exponentials and their sum.
SIMDFORMER_NOINLINE void softmax_strip_s16(const AttentionArgs& a, const OperandsS16& o,
                                           size_t rows, float* sum) {
  int32_t largest[kStripRows];
  for (size_t i = 0; i < rows; ++i) {
    largest[i] = max_score(a.num_keys, o.scores + i * o.ld_scores);
  }
  for (size_t i = 0; i < rows; ++i) {
    sum[i] = exp_scores(a.num_keys, o.score_unit, largest[i], o.scores + i * o.ld_scores);
  }
}

// The same with relative_bias. The sum of a row without a key is infinite.
SIMDFORMER_NOINLINE void biased_softmax_strip_s16(const AttentionArgs& a, const OperandsS16& o,
                                                  size_t row, size_t rows, float* sum) {
  float largest[kStripRows];
  for (size_t i = 0; i < rows; ++i) {
    const float* bias = a.relative_bias + (a.num_queries - 1 - row - i);
    largest[i] = bias_scores(a.num_keys, o.score_unit, bias, o.scores + i * o.ld_scores);
  }
  for (size_t i = 0; i < rows; ++i) {
    float* x = o.scores + i * o.ld_scores;
    if (largest[i] == kInfinity || (!o.finite_bias && has_nan(a.num_keys, x))) {
      sum[i] = __builtin_nanf("");
    } else if (largest[i] == -kInfinity) {
      sum[i] = kInfinity;
    } else {
      sum[i] = exp_biased_scores(a.num_keys, largest[i], x);
    }
  }
}

// Computes a row's out and weights from its sums of values and its exponentials.
SIMDFORMER_INLINE void finish_row_s16(const AttentionArgs& a, const OperandsS16& o, size_t row,
                                      size_t i, float sum) {
  float* out = a.out + (row + i) * a.ldo;
  float* weights = a.weights ? a.weights + (row + i) * a.ld_weights : nullptr;
  if (sum == kInfinity) {
    fill_row(a.value_dim, a.masked_value, out);
    if (weights) fill_row(a.num_keys, a.masked_value, weights);
    return;
  }
  scale_row(a.value_dim, o.step_v / sum, o.sums + i * o.ld_sums, out);
  if (weights) scale_pairs(a.num_keys, 1.0f / sum, o.scores + i * o.ld_scores, weights);
}

SIMDFORMER_INLINE void attend_strip_s16(const AttentionArgs& a, const OperandsS16& o, size_t row,
                                        size_t rows) {
  for (size_t i = 0; i < rows; ++i) {
    pair_halves(a.head_dim, a.q + (row + i) * a.ldq, o.step_q, o.q + i * o.ld_q);
  }
  gemm_s16({.m = rows,
            .n = a.num_keys,
            .k = o.half_dim,
            .a = o.q,
            .lda = o.ld_q,
            .w = o.packed_k,
            .packed_k = o.half_dim,
            .c = o.scores,
            .ldc = o.ld_scores});
  float sum[kStripRows];
  if (a.relative_bias) {
    biased_softmax_strip_s16(a, o, row, rows, sum);
  } else {
    softmax_strip_s16(a, o, rows, sum);
  }
  sum_values(a, o, rows);
  for (size_t i = 0; i < rows; ++i) finish_row_s16(a, o, row, i, sum[i]);
}

// Whether these products support all options of a call.
SIMDFORMER_INLINE bool is_for_s16(const AttentionArgs& a) {
  return a.score == Score::kDot && a.softmax_scale > 0 && !(a.softcap > 0) && !a.packed_k &&
         !a.key_bias && !a.pair_bias && !a.key_mask && !a.pair_mask && !limits_distance(a) &&
         !(a.weights && a.weights_stage != WeightsStage::kSoftmax) && a.num_keys > 0 &&
         a.head_dim <= kS16HeadDim;
}

SIMDFORMER_INLINE void find_steps(const AttentionArgs& a, OperandsS16& o) {
  // Not "> 0", because a NaN magnitude from the caller must be kept.
  const float largest_q = a.q_magnitude <= 0.0f
                              ? largest_magnitude(a.num_queries, a.head_dim, a.q, a.ldq)
                              : a.q_magnitude;
  o.step_q = step_of(largest_q);
  o.step_k = step_of(largest_magnitude(a.num_keys, a.head_dim, a.k, a.ldk));
  o.step_v = step_of(largest_magnitude(a.num_keys, a.value_dim, a.v, a.ldv));
  o.score_unit = o.step_q * o.step_k * a.softmax_scale;
}

void attention_s16(const AttentionArgs& a) {
  if (!VecI32::kHasFastS16 || !is_for_s16(a)) return attention(a);
  OperandsS16 o;
  place_s16(a.num_keys, a.head_dim, a.value_dim, a.scratch, o);
  find_steps(a, o);
  // If the product of scales is out of float32's range, float32 computes the call, as for numbers
  // that are not finite. With a bias the same applies to the largest possible score.
  const float largest_score = a.relative_bias ? 0x1p31f * o.score_unit : o.score_unit;
  if (!(largest_score < kInfinity && o.step_v < kInfinity)) return attention(a);
  o.finite_bias = !a.relative_bias || all_finite(a.relative_bias, a.num_queries + a.num_keys - 1);
  for (size_t j = 0; j < a.num_keys; ++j) {
    pair_halves(a.head_dim, a.k + j * a.ldk, o.step_k, o.rows + j * o.ld_q);
  }
  pack_weight(a.num_keys, o.half_dim, o.rows, o.ld_q, 0, ceil_div(a.num_keys, kNR), o.packed_k);
  pack_value_pairs(a, o.step_v, o.packed_v);
  for (size_t row = 0; row < a.num_queries; row += kStripRows) {
    attend_strip_s16(a, o, row, min_size(kStripRows, a.num_queries - row));
  }
}

}  // namespace
}  // namespace simdformer

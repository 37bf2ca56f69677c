// SPDX-License-Identifier: Apache-2.0
// Scores that are not matrix products: sums over p of a function of q[p] and k[p], with one key per
// lane, and without a temporary (queries, keys, head_dim).
#pragma once

#include "kernels/gemm.inl.h"
#include "kernels/kernels.h"
#include "simd/math.h"

namespace simdformer {
namespace {

// Scores of keys [begin, end), with one key per lane. packed_k: panels as written by pack_keys, so
// that a vector contains the same p of kLanes keys. sum(j, at, width) finds element p of the keys
// from j on at at + p * width.
template <typename Sum>
SIMDFORMER_INLINE void for_key_vectors(size_t head_dim, size_t begin, size_t end, size_t num_keys,
                                       float* scores, Sum sum) {
  for (size_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
    const size_t column = j / kNR * kNR;
    const size_t width = panel_vectors(num_keys, column) * kLanes;
    const VecF32 score = sum(j, column * head_dim + (j - column), width);
    score.store(scores + j, min_size(kLanes, end - j));
  }
}

SIMDFORMER_INLINE void distance_scores(const AttentionArgs& a, size_t begin, size_t end,
                                       size_t packed_keys, const float* q, const float* packed_k,
                                       float* scores) {
  const auto squared_distance = [&](size_t, size_t at, size_t width) {
    VecF32 sum = VecF32::zero();
    for (size_t p = 0; p < a.head_dim; ++p) {
      const VecF32 d = VecF32::broadcast(q[p]) - VecF32::load(packed_k + at + p * width);
      sum = fma(VecF32::zero() - d, d, sum);
    }
    return sum;
  };
  for_key_vectors(a.head_dim, begin, end, packed_keys, scores, squared_distance);
}

// The additive score uses tanh(q + k) = (e^2q e^2k - 1) / (e^2q e^2k + 1). The exponentials depend
// on q or k only, so only a division remains for each pair, and two terms share one division. The
// absolute error is that of float32 near 1. Elements beyond kNear, whose exponentials might
// overflow, use tanh itself.
constexpr float kNear = 40.0f;

// Operands of the additive score in addition to packed_k.
struct AdditiveOperands {
  const float* packed_k;
  size_t keys;   // as packed
  float* exp_k;  // e^2k, in the layout of packed_k
  float* near;   // (keys) 1 where every |k[p]| < kNear, else 0
  float* exp_q;  // (head_dim), scratch for e^2q
};

SIMDFORMER_INLINE VecF32 exp_twice(VecF32 x) { return exp(x + x); }

SIMDFORMER_INLINE void prepare_additive(size_t head_dim, const AdditiveOperands& o) {
  map_row(packed_size(o.keys, head_dim), o.packed_k, o.exp_k,
          [](VecF32 k) { return exp_twice(k); });
  for_key_vectors(head_dim, 0, o.keys, o.keys, o.near, [&](size_t, size_t at, size_t width) {
    VecF32 near = VecF32::broadcast(1.0f);
    for (size_t p = 0; p < head_dim; ++p) {
      const VecF32 size = abs(VecF32::load(o.packed_k + at + p * width));
      near = select(less(size, VecF32::broadcast(kNear)), near, VecF32::zero());
    }
    return near;
  });
}

struct Fraction {
  VecF32 numerator;
  VecF32 denominator;  // in [1, 2^26 + 2]: beyond 2^26, the quotient is 1 in float32
};

SIMDFORMER_INLINE Fraction tanh_fraction(float exp_q, const float* exp_k) {
  const VecF32 product =
      fma(VecF32::broadcast(exp_q), VecF32::load(exp_k), VecF32::broadcast(-1.0f));
  const VecF32 expm1 = min(VecF32::broadcast(67108864.0f), product);
  return {expm1, expm1 + VecF32::broadcast(2.0f)};
}

// sum of w[p] tanh(q[p] + k[p]), from the exponentials.
SIMDFORMER_INLINE VecF32 sum_fractions(size_t head_dim, const float* w, const float* exp_q,
                                       const float* exp_k, size_t width) {
  VecF32 sum = VecF32::zero();
  size_t p = 0;
  for (; p + 2 <= head_dim; p += 2) {
    const Fraction f = tanh_fraction(exp_q[p], exp_k + p * width);
    const Fraction g = tanh_fraction(exp_q[p + 1], exp_k + (p + 1) * width);
    const VecF32 wf = VecF32::broadcast(w[p]) * f.numerator;
    const VecF32 wg = VecF32::broadcast(w[p + 1]) * g.numerator;
    const VecF32 numerator = fma(wf, g.denominator, wg * f.denominator);
    sum = sum + numerator / (f.denominator * g.denominator);
  }
  if (p < head_dim) {
    const Fraction f = tanh_fraction(exp_q[p], exp_k + p * width);
    sum = fma(VecF32::broadcast(w[p]), f.numerator / f.denominator, sum);
  }
  return sum;
}

SIMDFORMER_INLINE VecF32 sum_tanh(size_t head_dim, const float* w, const float* q, const float* k,
                                  size_t width) {
  VecF32 sum = VecF32::zero();
  for (size_t p = 0; p < head_dim; ++p) {
    const VecF32 x = VecF32::broadcast(q[p]) + VecF32::load(k + p * width);
    sum = fma(VecF32::broadcast(w[p]), tanh(x), sum);
  }
  return sum;
}

SIMDFORMER_INLINE bool is_near(size_t n, const float* x) {
  const VecF32 one = VecF32::broadcast(1.0f);
  const VecF32 limit = VecF32::broadcast(kNear);
  return sum_row(n, x, [&](VecF32 v) {
           return select(less(abs(v), limit), VecF32::zero(), one);
         }) == 0.0f;
}

// The method used for a pair depends only on this pair.
SIMDFORMER_INLINE void additive_scores(const AttentionArgs& a, const AdditiveOperands& o,
                                       size_t begin, size_t end, const float* q, float* scores) {
  const float* w = a.additive_weight;
  const bool q_near = !a.exact_tanh && is_near(a.head_dim, q);
  if (q_near) map_row(a.head_dim, q, o.exp_q, [](VecF32 v) { return exp_twice(v); });
  for_key_vectors(a.head_dim, begin, end, o.keys, scores, [&](size_t j, size_t at, size_t width) {
    if (!q_near) return sum_tanh(a.head_dim, w, q, o.packed_k + at, width);
    const size_t valid = min_size(kLanes, o.keys - j);
    const VecF32 near = VecF32::load(o.near + j, valid);
    const VecF32 fast = sum_fractions(a.head_dim, w, o.exp_q, o.exp_k + at, width);
    if (reduce_add(near) == static_cast<float>(valid)) return fast;
    const VecF32 exact = sum_tanh(a.head_dim, w, q, o.packed_k + at, width);
    return select(less(VecF32::zero(), near), fast, exact);
  });
}

}  // namespace
}  // namespace simdformer

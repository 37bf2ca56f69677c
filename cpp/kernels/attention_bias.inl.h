// SPDX-License-Identifier: Apache-2.0
// Operations on a row of scores before softmax: scale, softcap, biases and masks, in this order. (A
// softcap after a mask would give weight to masked keys.)
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"
#include "kernels/softmax.inl.h"
#include "simd/math.h"

namespace simdformer {
namespace {

// The columns of scores: keys [begin, end) that at least one row sees.
struct KeyRange {
  size_t begin;
  size_t end;

  size_t size() const { return end - begin; }
};

// The keys that a query row sees because of their distance.
SIMDFORMER_INLINE KeyRange visible_keys(const AttentionArgs& a, size_t row) {
  const int64_t i = static_cast<int64_t>(row);
  const int64_t keys = static_cast<int64_t>(a.num_keys);
  const auto clamp = [&](int64_t j) {
    return static_cast<size_t>(j < 0 ? 0 : (j > keys ? keys : j));
  };
  const size_t begin = clamp(i + a.min_distance);
  const size_t end = clamp(i + a.max_distance + 1);
  return {begin, end < begin ? begin : end};
}

SIMDFORMER_INLINE bool limits_distance(const AttentionArgs& a) {
  return a.min_distance > -AttentionArgs::kUnbounded || a.max_distance < AttentionArgs::kUnbounded;
}

SIMDFORMER_INLINE bool has_masks(const AttentionArgs& a) {
  return limits_distance(a) || a.key_mask || a.pair_mask || a.pair_bias || a.key_bias ||
         a.relative_bias;
}

// Whether scores are scaled first. Otherwise exp(scale (x - max)) scales them, which saves a pass
// over the row. A mask does not count here, so that a mask without masked keys does not change
// results.
SIMDFORMER_INLINE bool scales_first(const AttentionArgs& a) {
  return a.softcap > 0 || a.key_bias || a.relative_bias || a.pair_bias || !(a.softmax_scale > 0) ||
         (a.weights && a.weights_stage != WeightsStage::kSoftmax);
}

constexpr float kLargest = 3.40282347e38f;

// Whether a query row sees a key.
SIMDFORMER_INLINE bool sees_key(const AttentionArgs& a, size_t row) {
  const KeyRange visible = visible_keys(a, row);
  const float* relative = a.relative_bias ? a.relative_bias + (a.num_queries - 1 - row) : nullptr;
  const float* pair = a.pair_bias ? a.pair_bias + row * a.ld_pair_bias : nullptr;
  const uint8_t* pair_mask = a.pair_mask ? a.pair_mask + row * a.ld_pair_mask : nullptr;
  for (size_t j = visible.begin; j < visible.end; ++j) {
    if ((a.key_mask && !a.key_mask[j]) || (pair_mask && !pair_mask[j])) continue;
    const auto hides = [&](const float* bias) { return bias && bias[j] < -kLargest; };
    if (!hides(a.key_bias) && !hides(relative) && !hides(pair)) return true;
  }
  return false;
}

// Bytewise select, vectorized by the compiler.
SIMDFORMER_INLINE void mask_row(size_t n, const uint8_t* mask, float* x) {
  for (size_t j = 0; j < n; ++j) x[j] = mask[j] ? x[j] : -kInfinity;
}

SIMDFORMER_INLINE void fill_row(size_t n, float value, float* x) {
  const VecF32 v = VecF32::broadcast(value);
  map_row(n, x, x, [&](VecF32) { return v; });
}

SIMDFORMER_INLINE void cap_row(size_t n, float softcap, float* x) {
  const VecF32 cap = VecF32::broadcast(softcap);
  const VecF32 inverse = VecF32::broadcast(1.0f / softcap);
  map_row(n, x, x, [&](VecF32 v) { return cap * tanh(v * inverse); });
}

// x += bias. Where bias is -inf it masks, even if x is NaN.
SIMDFORMER_INLINE void add_bias_row(size_t n, const float* bias, float* x) {
  const VecF32 lowest = VecF32::broadcast(-kLargest);
  update_row(n, bias, x, [&](VecF32 v, VecF32 b) { return select(less(b, lowest), b, v + b); });
}

// Converts raw scores of a query row, in columns [range.begin, range.end) of x, to scores ready for
// softmax.
SIMDFORMER_INLINE void bias_row(const AttentionArgs& a, size_t row, KeyRange range, float* x) {
  const size_t begin = range.begin;
  const size_t n = range.size();
  const KeyRange visible = visible_keys(a, row);
  const auto stage_out = [&](WeightsStage stage) {
    if (!a.weights || a.weights_stage != stage) return;
    copy_row(n, x + begin, a.weights + row * a.ld_weights + begin);
  };
  if (scales_first(a)) scale_row(n, a.softmax_scale, x + begin, x + begin);
  stage_out(WeightsStage::kScaled);
  if (a.softcap > 0) cap_row(n, a.softcap, x + begin);
  stage_out(WeightsStage::kCapped);
  if (a.key_bias) add_bias_row(n, a.key_bias + begin, x + begin);
  if (a.relative_bias) {
    add_bias_row(n, a.relative_bias + (a.num_queries - 1 - row) + begin, x + begin);
  }
  if (a.pair_bias) add_bias_row(n, a.pair_bias + row * a.ld_pair_bias + begin, x + begin);
  if (a.key_mask) mask_row(n, a.key_mask + begin, x + begin);
  if (a.pair_mask) mask_row(n, a.pair_mask + row * a.ld_pair_mask + begin, x + begin);
  if (visible.begin > begin)
    fill_row(min_size(visible.begin, range.end) - begin, -kInfinity, x + begin);
  if (visible.end < range.end) {
    const size_t from = visible.end < begin ? begin : visible.end;
    fill_row(range.end - from, -kInfinity, x + from);
  }
  stage_out(WeightsStage::kBiased);
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Weights in int8: how they are quantized, and how kernels read them.
#pragma once

#include <span>

#include "base/buffer.h"
#include "isa/dispatch.h"

namespace simdformer {

inline size_t num_s8_groups(size_t cols) { return (cols + kS8Group - 1) / kS8Group; }

// scale[j, g] = max_p |weight[j, p]| / 127 over the columns p of group g that are not outliers, and
// values[j, p] = round(weight[j, p] / scale[j, g]), 0 for outliers. A scale is never below the
// smallest normal number. rotated: weights are rotated, with 0 for outliers (kS8RotationOrder), and
// scales are so large that |values[j, p] + values[j, p + 1]| <= kS8PairLimit for even p. values:
// weight's shape; scale: (rows, num_s8_groups(cols)); outliers: ascending.
void quantize_weight(ConstMatrix weight, std::span<const int32_t> outliers, bool rotated,
                     int8_t* values, float* scale);

// A view of a quantized weight. outlier_weight: (rows, outliers.size()).
struct S8Matrix {
  size_t rows = 0;
  size_t cols = 0;
  const int8_t* values = nullptr;
  const float* scale = nullptr;
  std::span<const int32_t> outliers = {};
  const float* outlier_weight = nullptr;
  bool rotated = false;
};

// A quantized weight that owns its numbers, with the members of S8Matrix.
struct S8Numbers {
  Buffer<int8_t> values;
  Buffer<float> scale;
  Buffer<int32_t> outliers;
  Buffer<float> outlier_weight;
  bool rotated = false;
};

// A quantized weight, packed for one ISA level.
class PackedS8 {
 public:
  PackedS8() = default;
  PackedS8(const Kernels& kernels, const S8Matrix& weight);

  bool empty() const { return packed_.size() == 0; }
  S8Weight view() const;
  // The numbers that were packed: (rows, cols).
  S8Numbers unpack(const Kernels& kernels, size_t rows, size_t cols) const;
  S8Outliers outliers() const { return {begin_.data(), column_.data(), kept_.data()}; }

 private:
  Buffer<int8_t> packed_;
  Buffer<float> ranges_;
  Buffer<float> outlier_weight_;
  Buffer<uint32_t> begin_;  // empty without outliers, like the next two
  Buffer<uint32_t> column_;
  Buffer<float> kept_;
  bool rotated_ = false;
  bool bounded_ = false;
};

}  // namespace simdformer

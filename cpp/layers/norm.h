// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/buffer.h"
#include "base/parallel.h"
#include "isa/dispatch.h"

namespace simdformer {

// y = (x - mean) / sqrt(var + eps) * weight + bias, row by row.
class LayerNorm {
 public:
  // weight: (size); bias: (size) or null. Both are copied.
  LayerNorm(size_t size, const float* weight, const float* bias, float eps);

  size_t size() const { return weight_.size(); }
  const float* weight() const { return weight_.data(); }
  const float* bias() const { return bias_.data(); }
  float eps() const { return eps_; }

  // x, y: (rows, size); x == y allowed.
  void forward(Team& team, ConstMatrix x, Matrix y) const;

 private:
  const Kernels& kernels_;
  Buffer<float> weight_;
  Buffer<float> bias_;
  float eps_;
};

}  // namespace simdformer

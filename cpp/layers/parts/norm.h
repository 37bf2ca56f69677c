// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>

#include "base/buffer.h"
#include "base/parallel.h"
#include "isa/dispatch.h"

namespace simdformer {

// y = (x - mean) / sqrt(var + eps) * weight + bias for each row.
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

// The arguments of make_layer_norm, make_rms_norm or make_column_norm; members of the others are
// empty.
struct NormNumbers {
  std::span<const float> mean;
  std::span<const float> weight;
  std::span<const float> bias;
  float eps = 0.0f;
};

// The normalization that a Transformer layer was built with, applied to each row:
//   layer:  (x - mean) / sqrt(var + eps) * weight + bias
//   rms:    x / sqrt(mean(x^2) + eps) * weight
//   batch:  (x - running_mean) / sqrt(running_var + eps) * weight + bias
class Norm {
 public:
  virtual ~Norm() = default;
  virtual size_t size() const = 0;
  virtual NormNumbers numbers() const = 0;
  // For epilogues that normalize a row while it is in cache; null for other kinds.
  virtual const LayerNorm* fused() const { return nullptr; }
  // x, y: (rows, size); x == y allowed.
  virtual void forward(Team& team, ConstMatrix x, Matrix y) const = 0;
};

std::shared_ptr<Norm> make_layer_norm(std::shared_ptr<const LayerNorm> norm);
// weight: (size)
std::shared_ptr<Norm> make_rms_norm(std::span<const float> weight, float eps);
// All have the same size. Scale and shift are computed in float64.
std::shared_ptr<Norm> make_batch_norm(std::span<const float> weight, std::span<const float> bias,
                                      std::span<const float> running_mean,
                                      std::span<const float> running_var, float eps);
// (x - mean) * scale + shift, all of one size.
std::shared_ptr<Norm> make_column_norm(std::span<const float> mean, std::span<const float> scale,
                                       std::span<const float> shift);

}  // namespace simdformer

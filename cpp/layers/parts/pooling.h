// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/linear.h"
#include "layers/parts/norm.h"

namespace simdformer {

// A head's dense layer: activation(W x + b), plus x if residual, and normalized if there is a norm.
struct Dense {
  std::shared_ptr<const Linear> linear;
  Activation activation = Activation::kIdentity;
  bool residual = false;
  std::shared_ptr<const LayerNorm> norm = nullptr;
};

// Token vectors of one sequence to its embedding: the poolings' results side by side, then the
// dense layers, then L2 normalization.
class PoolingHead {
 public:
  PoolingHead(size_t hidden_size, std::vector<Pooling> pooling, std::vector<Dense> dense,
              bool normalize);

  size_t embedding_dimension() const;
  // Floats of scratch that forward needs.
  size_t scratch_size() const;

  // hidden_states: (tokens, hidden_size), pooled from row pooling_start on; without a row left the
  // pooled vector is 0. out: (embedding_dimension). On this thread alone.
  void forward(ConstMatrix hidden_states, size_t pooling_start, float* scratch, float* out) const;

 private:
  size_t widest() const;

  const Kernels& kernels_;
  size_t hidden_size_;
  std::vector<Pooling> pooling_;
  std::vector<Dense> dense_;
  bool normalize_;
};

}  // namespace simdformer

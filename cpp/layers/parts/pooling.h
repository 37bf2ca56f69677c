// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/linear.h"
#include "layers/parts/norm.h"

namespace simdformer {

// A dense layer of a head: activation(W x + b), plus x if residual is set, then normalized if there
// is a norm.
struct Dense {
  std::shared_ptr<const Linear> linear;
  Activation activation = Activation::kIdentity;
  bool residual = false;
  std::shared_ptr<const LayerNorm> norm = nullptr;
};

// The embedding from the token vectors of one sequence: the results of all poolings concatenated,
// then the dense layers, then L2 normalization.
class PoolingHead {
 public:
  PoolingHead(size_t hidden_size, std::vector<Pooling> pooling, std::vector<Dense> dense,
              bool normalize);

  const std::vector<Pooling>& pooling() const { return pooling_; }
  const std::vector<Dense>& dense() const { return dense_; }
  bool normalize() const { return normalize_; }
  size_t embedding_dimension() const;
  // The size in floats of forward's scratch.
  size_t scratch_size() const;

  // hidden_states: (tokens, hidden_size), pooled starting with row pooling_start; without rows the
  // pooled vector is 0. out: (embedding_dimension). Runs on this thread only.
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

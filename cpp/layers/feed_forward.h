// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/linear.h"
#include "layers/workspace.h"

namespace simdformer {

// down(activation(up(x))), position by position (Vaswani et al. 2017, section 3.3).
class FeedForward {
 public:
  FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
              Activation activation);

  size_t hidden_size() const { return down_->out_features(); }

  // Scratch for blocks of up to tokens.
  void reserve(Scratch scratch, size_t tokens) const;

  // y = norm(x + feed_forward(x)); x, y: (rows, hidden_size), no overlap.
  void forward(Team& team, ConstMatrix x, const LayerNorm& norm, Scratch scratch, Matrix y) const;

 private:
  size_t chunk_panels() const;
  void forward_rows(ConstMatrix x, const Epilogue& epilogue, Buffer<float>& intermediate,
                    Matrix y) const;

  std::shared_ptr<const Linear> up_;
  std::shared_ptr<const Linear> down_;
  Activation activation_;
};

}  // namespace simdformer

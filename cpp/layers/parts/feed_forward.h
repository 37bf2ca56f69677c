// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/parts/linear.h"
#include "layers/stack/workspace.h"

namespace simdformer {

// down(activation(up(x))), position by position (Vaswani et al. 2017, section 3.3), or with a gate
// down(activation(gate(x)) * up(x)) (Shazeer 2020, "GLU variants improve Transformer").
class FeedForward {
 public:
  // gate may be null.
  FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
              Activation activation, std::shared_ptr<const Linear> gate = nullptr);

  size_t hidden_size() const { return down_->out_features(); }

  // Scratch for blocks of up to tokens.
  void reserve(Scratch scratch, size_t tokens) const;

  // y = epilogue(feed_forward(x)); x, y: (rows, hidden_size), y overlaps neither x nor the
  // residual.
  void forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
               Matrix y) const;

 private:
  size_t chunk_panels() const;
  // gate = activation(gate) * up
  void apply_gate(const float* up, size_t n, float* gate) const;
  void forward_rows(ConstMatrix x, const Epilogue& epilogue, MemberScratch& scratch,
                    Matrix y) const;

  std::shared_ptr<const Linear> up_;
  std::shared_ptr<const Linear> down_;
  std::shared_ptr<const Linear> gate_;
  Activation activation_;
};

}  // namespace simdformer

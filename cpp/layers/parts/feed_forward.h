// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/linear.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// down(activation(up(x))) for each position (Vaswani et al. 2017, section 3.3), or with a gate
// down(activation(gate(x)) * up(x)) (Shazeer 2020, "GLU variants improve Transformer").
class FeedForward {
 public:
  // gate may be null. Separate gate and up each read the input.
  FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
              Activation activation, std::shared_ptr<const Linear> gate = nullptr);
  // gate and up as one matrix, with the rows of gate and up in the order of gated_rows(inner size).
  static FeedForward joined(std::shared_ptr<const Linear> gate_up,
                            std::shared_ptr<const Linear> down, Activation activation);

  // For the active level: the order of the rows of [gate; up], (2 inner_size, in), that `joined`
  // expects: whole panels of both for each chunk. -1 is a row of zeros.
  static std::vector<int32_t> gated_rows(size_t inner_size);

  size_t hidden_size() const { return down_->out_features(); }
  size_t inner_size() const { return down_->in_features(); }

  Activation activation() const { return activation_; }
  // Null if they are joined, or if there is no gate.
  const std::shared_ptr<const Linear>& up() const { return up_; }
  const std::shared_ptr<const Linear>& gate() const { return gate_; }
  // Null if they are not.
  const std::shared_ptr<const Linear>& gate_up() const { return gate_up_; }
  const std::shared_ptr<const Linear>& down() const { return down_; }

  // Reserves scratch for blocks of up to this number of tokens.
  void reserve(Scratch scratch, size_t tokens) const;

  // y = epilogue(feed_forward(x)). x, y: (rows, hidden_size); y must not overlap x or the residual.
  void forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
               Matrix y) const;

 private:
  FeedForward() = default;
  Matrix inner_chunk(ConstMatrix x, size_t column, MemberScratch& scratch) const;
  void forward_rows(ConstMatrix x, const Epilogue& epilogue, MemberScratch& scratch,
                    Matrix y) const;
  Matrix inner_together(Team& team, ConstMatrix x, BlockScratch& scratch) const;

  std::shared_ptr<const Linear> up_;       // without a gate, or separate from it
  std::shared_ptr<const Linear> gate_;     // separate from up
  std::shared_ptr<const Linear> gate_up_;  // joined
  std::shared_ptr<const Linear> down_;
  LinearGroup apart_[2];  // gate and up, if they are separate
  Activation activation_ = Activation::kIdentity;
};

}  // namespace simdformer

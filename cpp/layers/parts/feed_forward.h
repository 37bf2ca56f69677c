// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/linear.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// down(activation(up(x))), position by position (Vaswani et al. 2017, section 3.3), or with a gate
// down(activation(gate(x)) * up(x)) (Shazeer 2020, "GLU variants improve Transformer").
class FeedForward {
 public:
  // gate may be null. gate and up apart each read the input anew.
  FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
              Activation activation, std::shared_ptr<const Linear> gate = nullptr);
  // gate and up in one matrix, whose rows are gate's and then up's in the order of
  // gated_rows(inner size).
  static FeedForward joined(std::shared_ptr<const Linear> gate_up,
                            std::shared_ptr<const Linear> down, Activation activation);

  // Of the active level: the rows of [gate; up], (2 inner_size, in), as joined takes them: whole
  // panels of both for each chunk that is worked on at once. -1 is a row of zeros.
  static std::vector<int32_t> gated_rows(size_t inner_size);

  size_t hidden_size() const { return down_->out_features(); }
  size_t inner_size() const { return down_->in_features(); }

  // Scratch for blocks of up to tokens.
  void reserve(Scratch scratch, size_t tokens) const;

  // y = epilogue(feed_forward(x)); x, y: (rows, hidden_size), y overlaps neither x nor the
  // residual.
  void forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
               Matrix y) const;

 private:
  FeedForward() = default;
  Matrix inner_chunk(ConstMatrix x, size_t column, MemberScratch& scratch) const;
  void forward_rows(ConstMatrix x, const Epilogue& epilogue, MemberScratch& scratch,
                    Matrix y) const;
  Matrix inner_together(Team& team, ConstMatrix x, BlockScratch& scratch) const;

  std::shared_ptr<const Linear> up_;       // without a gate, or apart from it
  std::shared_ptr<const Linear> gate_;     // apart from up
  std::shared_ptr<const Linear> gate_up_;  // joined
  std::shared_ptr<const Linear> down_;
  LinearGroup apart_[2];  // gate and up, if they are apart
  Activation activation_ = Activation::kIdentity;
};

}  // namespace simdformer

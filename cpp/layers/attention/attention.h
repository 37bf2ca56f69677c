// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/attention/relative_bias.h"
#include "layers/parts/linear.h"
#include "layers/stack/batch.h"
#include "layers/stack/workspace.h"

namespace simdformer {

// Multi-head self-attention over each sequence of a block:
// concat_h(softmax(Q_h K_h^T / sqrt(head_dim) + B_h) V_h) W_O (Vaswani et al. 2017, section 3.2),
// B_h the relative bias, if there is one.
class SelfAttention {
 public:
  // qkv: hidden_size -> 3 * hidden_size, rows of its weight in the order Q, K, V. relative_bias may
  // be null.
  SelfAttention(std::shared_ptr<const Linear> qkv, std::shared_ptr<const Linear> output,
                size_t num_heads, std::shared_ptr<const RelativeBias> relative_bias = nullptr);

  size_t hidden_size() const { return output_->out_features(); }
  // The longest sequence that it serves; 0: any.
  size_t max_length() const { return relative_bias_ ? relative_bias_->max_length() : 0; }

  // Scratch for blocks of up to tokens, with sequences of up to max_seqlen.
  void reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const;

  // y = norm(x + attention(x)); x, y: (block.tokens, hidden_size), no overlap.
  void forward(Team& team, const Batch& batch, const Block& block, ConstMatrix x,
               const LayerNorm& norm, Scratch scratch, Matrix y) const;

 private:
  size_t head_dim() const { return hidden_size() / num_heads_; }
  // Whether it multiplies in 16-bit integers, which know no bias.
  bool in_s16() const { return qkv_->is_int8() && !relative_bias_; }
  void attend(Team& team, const Batch& batch, const Block& block, ConstMatrix qkv, Scratch scratch,
              Matrix context) const;

  std::shared_ptr<const Linear> qkv_;
  std::shared_ptr<const Linear> output_;
  size_t num_heads_;
  std::shared_ptr<const RelativeBias> relative_bias_;
};

}  // namespace simdformer

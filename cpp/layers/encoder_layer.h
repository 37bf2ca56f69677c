// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/attention.h"
#include "layers/feed_forward.h"
#include "layers/norm.h"

namespace simdformer {

// A post-norm Transformer encoder layer:
// h = attention_norm(x + attention(x)), y = output_norm(h + feed_forward(h)).
class EncoderLayer {
 public:
  EncoderLayer(std::shared_ptr<const SelfAttention> attention,
               std::shared_ptr<const LayerNorm> attention_norm,
               std::shared_ptr<const FeedForward> feed_forward,
               std::shared_ptr<const LayerNorm> output_norm);

  size_t hidden_size() const { return attention_->hidden_size(); }
  // The longest sequence that it serves; 0: any.
  size_t max_length() const { return attention_->max_length(); }

  void reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const;

  // x, y: (block.tokens, hidden_size), no overlap.
  void forward(Team& team, const Batch& batch, const Block& block, ConstMatrix x, Scratch scratch,
               Matrix y) const;

 private:
  std::shared_ptr<const SelfAttention> attention_;
  std::shared_ptr<const LayerNorm> attention_norm_;
  std::shared_ptr<const FeedForward> feed_forward_;
  std::shared_ptr<const LayerNorm> output_norm_;
};

}  // namespace simdformer

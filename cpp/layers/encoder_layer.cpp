// SPDX-License-Identifier: Apache-2.0
#include "layers/encoder_layer.h"

#include "base/check.h"

namespace simdformer {

EncoderLayer::EncoderLayer(std::shared_ptr<const SelfAttention> attention,
                           std::shared_ptr<const LayerNorm> attention_norm,
                           std::shared_ptr<const FeedForward> feed_forward,
                           std::shared_ptr<const LayerNorm> output_norm)
    : attention_(std::move(attention)),
      attention_norm_(std::move(attention_norm)),
      feed_forward_(std::move(feed_forward)),
      output_norm_(std::move(output_norm)) {
  const auto check_size = [&](const char* part, size_t size) {
    check(size == hidden_size(), "EncoderLayer: ", part, " has size ", size,
          ", attention has hidden_size ", hidden_size());
  };
  check_size("attention_norm", attention_norm_->size());
  check_size("feed_forward", feed_forward_->hidden_size());
  check_size("output_norm", output_norm_->size());
}

void EncoderLayer::reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const {
  reserve_matrix(scratch.block.attention_output, tokens, hidden_size());
  attention_->reserve(scratch, tokens, max_seqlen);
  feed_forward_->reserve(scratch, tokens);
}

void EncoderLayer::forward(Team& team, const Batch& batch, const Block& block, ConstMatrix x,
                           Scratch scratch, Matrix y) const {
  const Matrix h = reserve_matrix(scratch.block.attention_output, block.tokens, hidden_size());
  attention_->forward(team, batch, block, x, *attention_norm_, scratch, h);
  feed_forward_->forward(team, h, {.residual = h, .norm = output_norm_.get()}, scratch, y);
}

}  // namespace simdformer

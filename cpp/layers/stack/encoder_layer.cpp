// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/encoder_layer.h"

#include "base/check.h"

namespace simdformer {

PostNormLayer::PostNormLayer(std::shared_ptr<const SelfAttention> attention,
                             std::shared_ptr<const LayerNorm> attention_norm,
                             std::shared_ptr<const FeedForward> feed_forward,
                             std::shared_ptr<const LayerNorm> output_norm)
    : attention_(std::move(attention)),
      attention_norm_(std::move(attention_norm)),
      feed_forward_(std::move(feed_forward)),
      output_norm_(std::move(output_norm)) {
  const auto check_size = [&](const char* part, size_t size) {
    check(size == hidden_size(), "PostNormLayer: ", part, " has size ", size,
          ", attention has hidden_size ", hidden_size());
  };
  check_size("attention_norm", attention_norm_->size());
  check_size("feed_forward", feed_forward_->hidden_size());
  check_size("output_norm", output_norm_->size());
}

void PostNormLayer::reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const {
  reserve_matrix(scratch.block.attention_output, tokens, hidden_size());
  attention_->reserve(scratch, tokens, max_seqlen);
  feed_forward_->reserve(scratch, tokens);
}

Matrix PostNormLayer::forward(Team& team, const Batch& batch, const Block& block, Matrix x,
                              Scratch scratch, Matrix y) const {
  const Matrix h = reserve_matrix(scratch.block.attention_output, block.tokens, hidden_size());
  attention_->forward(team, batch, block, x, *attention_norm_, scratch, h);
  feed_forward_->forward(team, h, {.residual = h, .norm = output_norm_.get()}, scratch, y);
  return y;
}

RotaryLayer::RotaryLayer(std::shared_ptr<const TransformerLayer> layer,
                         std::shared_ptr<const RotaryTable> table)
    : layer_(std::move(layer)), table_(std::move(table)) {
  check(!layer_->cross_attention(), "RotaryLayer: layer has cross-attention");
  const size_t head_dim = layer_->self_attention().head_dim();
  check(2 * table_->pairs <= head_dim, "RotaryLayer: the table turns ", table_->pairs,
        " pairs of features, head_dim is ", head_dim);
}

PositionTables RotaryLayer::position() const {
  return {.cos = table_->cos.data(), .sin = table_->sin.data(), .rotary_dim = 2 * table_->pairs};
}

void RotaryLayer::reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const {
  layer_->reserve(scratch, {.tokens = tokens, .max_keys = max_seqlen}, position());
}

Matrix RotaryLayer::forward(Team& team, const Batch& batch, const Block& block, Matrix x,
                            Scratch scratch, Matrix y) const {
  const AttentionPattern itself{.cu_q = batch.cu_seqlens, .cu_k = batch.cu_seqlens};
  const AttentionPattern none;
  const TransformerLayer::Call call{.self = itself, .cross = none, .memory = {}};
  return layer_->forward(team, call, {.position = position()}, block, x, scratch, y);
}

}  // namespace simdformer

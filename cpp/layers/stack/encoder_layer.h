// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/attention/attention.h"
#include "layers/parts/feed_forward.h"
#include "layers/parts/norm.h"
#include "layers/stack/transformer_layer.h"

namespace simdformer {

// A layer of an Encoder.
class EncoderLayer {
 public:
  virtual ~EncoderLayer() = default;

  virtual size_t hidden_size() const = 0;
  // The longest sequence that it serves; 0: any.
  virtual size_t max_length() const = 0;

  virtual void reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const = 0;

  // x, y: (block.tokens, hidden_size), no overlap; x holds the input. Both may be overwritten;
  // returns the one that holds the output.
  virtual Matrix forward(Team& team, const Batch& batch, const Block& block, Matrix x,
                         Scratch scratch, Matrix y) const = 0;
};

// BERT's: h = attention_norm(x + attention(x)), y = output_norm(h + feed_forward(h)).
class PostNormLayer final : public EncoderLayer {
 public:
  PostNormLayer(std::shared_ptr<const SelfAttention> attention,
                std::shared_ptr<const LayerNorm> attention_norm,
                std::shared_ptr<const FeedForward> feed_forward,
                std::shared_ptr<const LayerNorm> output_norm);

  size_t hidden_size() const override { return attention_->hidden_size(); }
  size_t max_length() const override { return attention_->max_length(); }
  void reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const override;
  Matrix forward(Team& team, const Batch& batch, const Block& block, Matrix x, Scratch scratch,
                 Matrix y) const override;

 private:
  std::shared_ptr<const SelfAttention> attention_;
  std::shared_ptr<const LayerNorm> attention_norm_;
  std::shared_ptr<const FeedForward> feed_forward_;
  std::shared_ptr<const LayerNorm> output_norm_;
};

// cos and sin of each position and pair of features (j, j + pairs), (positions, pairs) contiguous.
struct RotaryTable {
  Buffer<float> cos;
  Buffer<float> sin;
  size_t positions = 0;
  size_t pairs = 0;
};

// Any layer of self-attention, with queries and keys turned by their positions.
class RotaryLayer final : public EncoderLayer {
 public:
  RotaryLayer(std::shared_ptr<const TransformerLayer> layer,
              std::shared_ptr<const RotaryTable> table);

  size_t hidden_size() const override { return layer_->hidden_size(); }
  size_t max_length() const override { return table_->positions; }
  void reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const override;
  Matrix forward(Team& team, const Batch& batch, const Block& block, Matrix x, Scratch scratch,
                 Matrix y) const override;

 private:
  PositionTables position() const;

  std::shared_ptr<const TransformerLayer> layer_;
  std::shared_ptr<const RotaryTable> table_;
};

}  // namespace simdformer

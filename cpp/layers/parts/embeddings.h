// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "layers/parts/batch.h"
#include "layers/parts/linear.h"
#include "layers/parts/norm.h"
#include "layers/parts/table.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// projection(norm(word[id] + position[i] + token_type[type])) for token i of a sequence. With a
// padding_idx, positions are counted as in RoBERTa: the first one is padding_idx + 1, and a token
// whose id is padding_idx (a text may contain it) has position padding_idx and does not count.
class Embeddings {
 public:
  // Tables (.., width); position and token_type are copied. They (without rows), norm and
  // projection (null) are optional. head: a float32 layer whose weight replaces word, which is then
  // empty; rows are looked up in its panels.
  Embeddings(Table word, std::shared_ptr<const Linear> head, ConstMatrix position,
             ConstMatrix token_type, std::shared_ptr<const LayerNorm> norm,
             std::optional<size_t> padding_idx, std::shared_ptr<const Linear> projection);

  size_t hidden_size() const { return projection_ ? projection_->out_features() : width_; }
  size_t vocab_size() const { return head_ ? head_->out_features() : word_.rows(); }
  size_t num_token_types() const { return token_type_.size() / width_; }
  // The maximum length of a sequence, given by the table of positions; 0 without a table.
  size_t max_positions() const { return position_ids_.size() - first_position_; }
  // The layer that replaces word; null if there is none.
  const std::shared_ptr<const Linear>& head() const { return head_; }
  size_t width() const { return width_; }
  const std::shared_ptr<const LayerNorm>& norm() const { return norm_; }
  std::optional<size_t> padding_idx() const { return padding_idx_; }
  const std::shared_ptr<const Linear>& projection() const { return projection_; }
  // (.., width); no rows if there is no table.
  const Table& word() const { return word_; }
  ConstMatrix position() const { return table(position_); }
  ConstMatrix token_type() const { return table(token_type_); }

  // Throws std::out_of_range for ids outside the tables. The stack checks lengths.
  void check_batch(const Batch& batch) const;

  void reserve(BlockScratch& scratch, size_t tokens) const;
  // y: (block.tokens, hidden_size)
  void forward(Team& team, const Batch& batch, const Block& block, BlockScratch& scratch,
               Matrix y) const;

 private:
  ConstMatrix table(const Buffer<float>& rows) const;
  void look_up(Team& team, const Batch& batch, const Block& block, Matrix y) const;
  void sum(const Batch& batch, size_t token, size_t position, Matrix y) const;
  void sum_counted(const Batch& batch, size_t token, Matrix y) const;

  const Kernels& kernels_;
  std::shared_ptr<const Linear> head_;
  size_t width_;
  Table word_;
  Buffer<float> position_;
  Buffer<float> token_type_;
  std::optional<size_t> padding_idx_;
  size_t first_position_;
  Buffer<int32_t> position_ids_;  // 0, 1, ...
  std::shared_ptr<const LayerNorm> norm_;
  std::shared_ptr<const Linear> projection_;
};

}  // namespace simdformer

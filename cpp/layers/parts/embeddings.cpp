// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/embeddings.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/check.h"

namespace simdformer {
namespace {

Buffer<float> copy_table(ConstMatrix table) {
  Buffer<float> copy(table.rows * table.cols);
  for (size_t r = 0; r < table.rows; ++r) {
    std::copy_n(table.row(r), table.cols, copy.data() + r * table.cols);
  }
  return copy;
}

void check_ids(const char* name, std::span<const int32_t> ids, size_t limit) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && static_cast<size_t>(ids[i]) < limit) continue;
    throw std::out_of_range(
        concat(name, "[", i, "] is ", ids[i], ", expected an id in [0, ", limit, ")"));
  }
}

}  // namespace

Embeddings::Embeddings(Table word, std::shared_ptr<const Linear> head, ConstMatrix position,
                       ConstMatrix token_type, std::shared_ptr<const LayerNorm> norm,
                       std::optional<size_t> padding_idx, std::shared_ptr<const Linear> projection)
    : kernels_(active_kernels()),
      head_(std::move(head)),
      width_(head_ ? head_->in_features() : word.cols()),
      word_(std::move(word)),
      position_(copy_table(position)),
      token_type_(copy_table(token_type)),
      padding_idx_(position.rows > 0 ? padding_idx : std::nullopt),
      first_position_(padding_idx_ ? *padding_idx_ + 1 : 0),
      position_ids_(position.rows),
      norm_(std::move(norm)),
      projection_(std::move(projection)) {
  check(head_ || (word_.rows() > 0 && word_.cols() > 0), "Embeddings: word is empty");
  check(!head_ || !(head_->is_int8() || head_->is_bfloat16()),
        "Embeddings: a layer that stands for word must be in float32");
  check(position.rows == 0 || position.cols == width_, "Embeddings: position has ", position.cols,
        " columns, word has ", width_);
  check(token_type.rows == 0 || token_type.cols == width_, "Embeddings: token_type has ",
        token_type.cols, " columns, word has ", width_);
  check(!padding_idx_ || position.rows > first_position_, "Embeddings: position has ",
        position.rows, " rows, none behind padding_idx ", padding_idx_.value_or(0));
  check(!norm_ || norm_->size() == width_, "Embeddings: norm has size ", norm_ ? norm_->size() : 0,
        ", word has ", width_, " columns");
  check(!projection_ || projection_->in_features() == width_, "Embeddings: projection takes ",
        projection_ ? projection_->in_features() : 0, " features, word has ", width_, " columns");
  std::iota(position_ids_.data(), position_ids_.data() + position_ids_.size(), 0);
}

ConstMatrix Embeddings::table(const Buffer<float>& rows) const {
  return {rows.data(), rows.size() / width_, width_, width_};
}

void Embeddings::check_batch(const Batch& batch) const {
  check_ids("input_ids", batch.input_ids, vocab_size());
  check_ids("token_type_ids", batch.token_type_ids, std::max<size_t>(1, num_token_types()));
}

// The rows of tokens starting at `token`, at positions starting at `position`.
void Embeddings::sum(const Batch& batch, size_t token, size_t position, Matrix y) const {
  const bool typed = !batch.token_type_ids.empty();
  EmbeddingArgs args{
      .rows = y.rows,
      .cols = width_,
      .word = word_.view(),
      .position = position_.data(),
      .token_type = token_type_.data(),
      .input_ids = batch.input_ids.data() + token,
      .position_ids = position_ids_.data() + position,
      .token_type_ids = typed ? batch.token_type_ids.data() + token : nullptr,
      .y = y.data,
      .ldy = y.stride,
  };
  if (!head_) return kernels_.embedding_sum(args);
  // The row is copied to the place of its sum.
  constexpr int32_t kFirst = 0;
  args.rows = 1;
  args.input_ids = &kFirst;
  for (size_t r = 0; r < y.rows; ++r) {
    head_->unpack_row(static_cast<size_t>(batch.input_ids[token + r]), y.row(r));
    args.word.float32 = args.y = y.row(r);
    kernels_.embedding_sum(args);
    if (args.position) ++args.position_ids;
    if (args.token_type_ids) ++args.token_type_ids;
  }
}

// A sequence with padding tokens that do not count: the runs between them, and each of them
// separately.
void Embeddings::sum_counted(const Batch& batch, size_t token, Matrix y) const {
  const auto ids = batch.input_ids.subspan(token, y.rows);
  const auto padding = static_cast<int32_t>(*padding_idx_);
  size_t position = first_position_;
  for (size_t begin = 0; begin < ids.size();) {
    const auto found = std::find(ids.begin() + static_cast<ptrdiff_t>(begin), ids.end(), padding);
    const auto end = static_cast<size_t>(found - ids.begin());
    sum(batch, token + begin, position, y.slice(begin, end - begin));
    if (end < ids.size()) sum(batch, token + end, *padding_idx_, y.slice(end, 1));
    position += end - begin;
    begin = end + 1;
  }
}

void Embeddings::look_up(Team& team, const Batch& batch, const Block& block, Matrix y) const {
  team.for_each(block.last_sequence - block.first_sequence, [&](size_t i) {
    const size_t sequence = block.first_sequence + i;
    const size_t token = batch.begin(sequence);
    const Matrix rows = y.slice(token - block.first_token, batch.length(sequence));
    if (padding_idx_) {
      sum_counted(batch, token, rows);
    } else {
      sum(batch, token, 0, rows);
    }
    Team alone = team.alone();
    if (norm_) norm_->forward(alone, rows, rows);
  });
}

void Embeddings::reserve(BlockScratch& scratch, size_t tokens) const {
  if (projection_) reserve_matrix(scratch.normed, tokens, width_);
}

void Embeddings::forward(Team& team, const Batch& batch, const Block& block, BlockScratch& scratch,
                         Matrix y) const {
  if (!projection_) return look_up(team, batch, block, y);
  const Matrix rows = reserve_matrix(scratch.normed, block.tokens, width_);
  look_up(team, batch, block, rows);
  projection_->forward(team, rows, y);
}

}  // namespace simdformer

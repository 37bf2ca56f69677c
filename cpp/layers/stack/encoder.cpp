// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/encoder.h"

#include <algorithm>

#include "base/check.h"
#include "layers/stack/schedule.h"

namespace simdformer {
namespace {

void check_offsets(const Batch& batch) {
  const auto& cu = batch.cu_seqlens;
  check(!cu.empty(), "cu_seqlens must have at least one element, the leading 0");
  check(cu.front() == 0, "cu_seqlens must start at 0, got ", cu.front());
  for (size_t i = 1; i < cu.size(); ++i) {
    check(cu[i] >= cu[i - 1], "cu_seqlens must not decrease, got ", cu[i - 1], " then ", cu[i],
          " at index ", i);
  }
  check(static_cast<size_t>(cu.back()) == batch.input_ids.size(),
        "cu_seqlens must end with total_tokens=", batch.input_ids.size(), ", got ", cu.back());
  check(batch.token_type_ids.empty() || batch.token_type_ids.size() == batch.input_ids.size(),
        "token_type_ids has ", batch.token_type_ids.size(), " elements, input_ids has ",
        batch.input_ids.size());
}

void check_lengths(const Batch& batch, size_t max_positions) {
  if (max_positions == 0) return;
  for (size_t s = 0; s < batch.size(); ++s) {
    check(batch.length(s) <= max_positions, "sequence ", s, " has ", batch.length(s),
          " tokens, the model serves ", max_positions, " positions");
  }
}

size_t max_seqlen(const Batch& batch) {
  size_t longest = 0;
  for (size_t s = 0; s < batch.size(); ++s) longest = std::max(longest, batch.length(s));
  return longest;
}

}  // namespace

Encoder::Encoder(std::shared_ptr<const Embeddings> embeddings,
                 std::vector<std::shared_ptr<const EncoderLayer>> layers,
                 std::shared_ptr<const Norm> norm)
    : embeddings_(std::move(embeddings)),
      layers_(std::move(layers)),
      norm_(std::move(norm)),
      max_positions_(embeddings_->max_positions()),
      workspaces_(std::make_unique<WorkspacePool>()) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    check(layers_[i]->hidden_size() == hidden_size(), "Encoder: layers[", i, "] has hidden_size ",
          layers_[i]->hidden_size(), ", embeddings have ", hidden_size());
    const size_t served = layers_[i]->max_length();
    if (served > 0 && (max_positions_ == 0 || served < max_positions_)) max_positions_ = served;
  }
  check(!norm_ || norm_->size() == hidden_size(), "Encoder: norm has size ",
        norm_ ? norm_->size() : 0, ", embeddings have ", hidden_size());
}

Encoder::~Encoder() = default;

void Encoder::reserve(Scratch scratch, size_t tokens, size_t max_length) const {
  for (auto& hidden_states : scratch.block.hidden_states) {
    reserve_matrix(hidden_states, tokens, hidden_size());
  }
  for (const auto& layer : layers_) layer->reserve(scratch, tokens, max_length);
}

void Encoder::forward_block(Team& team, const Batch& batch, const Block& block, Scratch scratch,
                            const BlockSink& sink) const {
  auto& [first, second] = scratch.block.hidden_states;
  Matrix x = reserve_matrix(first, block.tokens, hidden_size());
  Matrix y = reserve_matrix(second, block.tokens, hidden_size());
  embeddings_->forward(team, batch, block, x);
  for (const auto& layer : layers_) {
    const Matrix result = layer->forward(team, batch, block, x, scratch, y);
    if (result.data == y.data) std::swap(x, y);
  }
  if (norm_) norm_->forward(team, x, x);
  team.for_each(block.last_sequence - block.first_sequence, [&](size_t i) {
    const size_t sequence = block.first_sequence + i;
    const size_t row = batch.begin(sequence) - block.first_token;
    sink(team, sequence, x.slice(row, batch.length(sequence)));
  });
}

void Encoder::forward(const Batch& batch, int num_threads, const StopCheck& stop_check,
                      Sink sink) const {
  check_offsets(batch);
  embeddings_->check_batch(batch);
  check_lengths(batch, max_positions_);
  const size_t size = static_cast<size_t>(team_size(num_threads));
  const Schedule schedule = make_schedule(batch, hidden_size(), size);

  std::unique_ptr<Workspace> workspace = workspaces_->take(size);
  const size_t longest = max_seqlen(batch);
  if (!schedule.together.empty()) reserve(workspace->shared(), schedule.max_tokens(), longest);
  if (!schedule.side_by_side.empty()) {
    for (size_t rank = 0; rank < size; ++rank) {
      reserve(workspace->of_member(rank), schedule.max_tokens(), longest);
    }
  }
  run_team(num_threads, stop_check, [&](Team& team) {
    for (const Block& block : schedule.together) {
      forward_block(team, batch, block, workspace->shared(),
                    [&](Team& t, size_t s, ConstMatrix rows) { sink(t.rank(), s, rows); });
    }
    Team alone = team.alone();
    const size_t rank = team.rank();
    const auto& blocks = schedule.side_by_side;
    for (size_t i = team.next_task(blocks.size()); i < blocks.size();
         i = team.next_task(blocks.size())) {
      forward_block(alone, batch, blocks[i], workspace->of_member(rank),
                    [&](Team&, size_t s, ConstMatrix rows) { sink(rank, s, rows); });
    }
  });
  workspaces_->give_back(std::move(workspace));
}

SentenceEncoder::SentenceEncoder(std::shared_ptr<const Encoder> encoder, SentenceHead head)
    : encoder_(std::move(encoder)), head_(std::move(head)) {}

void SentenceEncoder::forward(const Batch& batch, size_t pooling_start, int num_threads,
                              const StopCheck& stop_check, Matrix out) const {
  const size_t stride = padded_stride(head_.scratch_size());
  Buffer<float> scratch(stride * static_cast<size_t>(team_size(num_threads)));
  encoder_->forward(
      batch, num_threads, stop_check, [&](size_t member, size_t sequence, ConstMatrix rows) {
        head_.forward(rows, pooling_start, scratch.data() + member * stride, out.row(sequence));
      });
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/transformer_stack.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {
namespace {

std::vector<size_t> lengths(std::span<const int32_t> cu) {
  std::vector<size_t> result;
  for (size_t s = 0; s + 1 < cu.size(); ++s) result.push_back(sequence_length(cu, s));
  return result;
}

}  // namespace

TransformerStack::TransformerStack(std::vector<std::shared_ptr<const TransformerLayer>> layers,
                                   std::shared_ptr<const Norm> norm)
    : layers_(std::move(layers)),
      norm_(std::move(norm)),
      workspaces_(std::make_unique<WorkspacePool>()) {
  check(!layers_.empty(), "TransformerStack: there are no layers");
  const auto* cross = layers_.front()->cross_attention();
  for (size_t i = 0; i < layers_.size(); ++i) {
    check(layers_[i]->hidden_size() == hidden_size(), "TransformerStack: layers[", i,
          "] has hidden_size ", layers_[i]->hidden_size(), ", layers[0] has ", hidden_size());
    const auto* other = layers_[i]->cross_attention();
    check(!cross == !other && (!cross || cross->key_dim() == other->key_dim()),
          "TransformerStack: layers[", i, "] reads another memory than layers[0]");
  }
  check(!norm_ || norm_->size() == hidden_size(), "TransformerStack: norm has size ",
        norm_ ? norm_->size() : 0, ", layers have hidden_size ", hidden_size());
}

TransformerStack::~TransformerStack() = default;

bool TransformerStack::has_cross_attention() const { return layers_.front()->cross_attention(); }

// A cache whose filling was stopped halfway has no length yet and is filled anew.
bool TransformerStack::reads_memory(const Call& call) const {
  if (!has_cross_attention()) return false;
  if (!call.cross_cache) return true;
  for (size_t s = 0; s < call.cross_cache->size(); ++s) {
    if (call.cross_cache->length(s) > 0) return false;
  }
  return true;
}

void TransformerStack::reserve_caches(const Call& call) const {
  std::vector<KVShape> shapes;
  if (call.self_cache) {
    for (const auto& layer : layers_) shapes.push_back(layer->self_attention().kv_shape());
    call.self_cache->reserve(lengths(call.self.cu_q), shapes);
  }
  if (call.cross_cache && reads_memory(call)) {
    shapes.clear();
    for (const auto& layer : layers_) shapes.push_back(layer->cross_attention()->kv_shape());
    call.cross_cache->reserve(lengths(call.cross.cu_k), shapes);
  }
}

void TransformerStack::reserve(Scratch scratch, const Call& call, const Sizes& sizes) const {
  for (auto& hidden_states : scratch.block.hidden_states) {
    reserve_matrix(hidden_states, sizes.tokens, hidden_size());
  }
  if (sizes.memory_tokens > 0) {
    reserve_matrix(scratch.block.memory, sizes.memory_tokens,
                   layers_.front()->cross_attention()->key_dim());
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->reserve(scratch, sizes, call.places[i].position);
  }
}

void TransformerStack::forward_block(Team& team, const Call& call, const Block& block,
                                     Scratch scratch) const {
  Matrix x = reserve_matrix(scratch.block.hidden_states[0], block.tokens, hidden_size());
  Matrix y = reserve_matrix(scratch.block.hidden_states[1], block.tokens, hidden_size());
  gather(team, call.x, call.self.cu_q, block, 0, x);
  Matrix memory;
  if (reads_memory(call)) {
    memory = reserve_matrix(scratch.block.memory, static_cast<size_t>(call.cross.cu_k.back()),
                            layers_.front()->cross_attention()->key_dim());
    gather(team, call.memory, call.cross.cu_k, block, 0, memory);
  }
  const TransformerLayer::Call shared{.self = call.self,
                                      .cross = call.cross,
                                      .memory = memory,
                                      .self_cache = call.self_cache,
                                      .cross_cache = call.cross_cache};
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Matrix result = layers_[i]->forward(team, shared, call.places[i], block, x, scratch, y);
    if (result.data == y.data) std::swap(x, y);
  }
  if (norm_) norm_->forward(team, x, x);
  scatter(team, x, call.self.cu_q, block, call.padded_length, call.y);
}

TransformerStack::Sizes TransformerStack::sizes_of(const Call& call,
                                                   const Schedule& schedule) const {
  Sizes sizes{.tokens = schedule.max_tokens(), .max_keys = longest_sequence(call.self.cu_q)};
  if (call.self_cache) {
    for (size_t s = 0; s < call.self_cache->size(); ++s) {
      sizes.max_keys =
          std::max(sizes.max_keys, call.self_cache->length(s) + sequence_length(call.self.cu_q, s));
    }
  }
  if (reads_memory(call)) {
    sizes.memory_tokens = static_cast<size_t>(call.cross.cu_k.back());
    sizes.max_memory = longest_sequence(call.cross.cu_k);
  } else if (call.cross_cache) {
    for (size_t s = 0; s < call.cross_cache->size(); ++s) {
      sizes.max_memory = std::max(sizes.max_memory, call.cross_cache->length(s));
    }
  }
  return sizes;
}

void TransformerStack::forward(const Call& call, int num_threads,
                               const StopCheck& stop_check) const {
  const size_t size = static_cast<size_t>(team_size(num_threads));
  const size_t batch_size = call.self.cu_q.size() - 1;
  const auto tokens = static_cast<size_t>(call.self.cu_q.back());
  const bool by_blocks = !call.self_cache && !has_cross_attention();
  Schedule schedule;
  if (by_blocks) {
    Batch batch;
    batch.cu_seqlens = call.self.cu_q;
    schedule = make_schedule(batch, hidden_size(), size);
  } else {
    schedule.together.push_back({0, batch_size, 0, tokens});
  }
  reserve_caches(call);
  const Sizes sizes = sizes_of(call, schedule);
  std::unique_ptr<Workspace> workspace = workspaces_->take(size);
  if (!schedule.together.empty()) reserve(workspace->shared(), call, sizes);
  for (size_t rank = 0; rank < size && !schedule.side_by_side.empty(); ++rank) {
    reserve(workspace->of_member(rank), call, sizes);
  }
  run_team(num_threads, stop_check, [&](Team& team) {
    for (const Block& block : schedule.together) {
      forward_block(team, call, block, workspace->shared());
    }
    Team alone = team.alone();
    const auto& blocks = schedule.side_by_side;
    for (size_t i = team.next_task(blocks.size()); i < blocks.size();
         i = team.next_task(blocks.size())) {
      forward_block(alone, call, blocks[i], workspace->of_member(team.rank()));
    }
  });
  workspaces_->give_back(std::move(workspace));
  if (call.self_cache) call.self_cache->advance(lengths(call.self.cu_q));
  if (call.cross_cache && reads_memory(call)) {
    call.cross_cache->advance(lengths(call.cross.cu_k));
  }
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/transformer_stack.h"

#include <algorithm>

#include "base/check.h"
#include "layers/stack/blocks.h"

namespace simdformer {
namespace {

std::vector<size_t> lengths(std::span<const int32_t> cu) {
  std::vector<size_t> result;
  for (size_t s = 0; s + 1 < cu.size(); ++s) result.push_back(sequence_length(cu, s));
  return result;
}

// The smaller limit; 0 means no limit.
size_t tighter(size_t a, size_t b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

}  // namespace

TransformerStack::TransformerStack(std::vector<std::shared_ptr<const TransformerLayer>> layers,
                                   std::shared_ptr<const Norm> norm,
                                   std::shared_ptr<const Embeddings> embeddings)
    : layers_(std::move(layers)),
      norm_(std::move(norm)),
      embeddings_(std::move(embeddings)),
      workspaces_(std::make_unique<WorkspacePool>()) {
  check(!layers_.empty() || embeddings_, "TransformerStack: there are no layers");
  hidden_size_ = embeddings_ ? embeddings_->hidden_size() : layers_[0]->hidden_size();
  max_length_ = embeddings_ ? embeddings_->max_positions() : 0;
  const auto* cross = layers_.empty() ? nullptr : layers_[0]->cross_attention();
  for (size_t i = 0; i < layers_.size(); ++i) {
    check(layers_[i]->hidden_size() == hidden_size_, "TransformerStack: layers[", i,
          "] has hidden_size ", layers_[i]->hidden_size(),
          embeddings_ ? ", embeddings have " : ", layers[0] has ", hidden_size_);
    const auto* other = layers_[i]->cross_attention();
    check(!cross == !other && (!cross || cross->key_dim() == other->key_dim()),
          "TransformerStack: layers[", i, "] reads another memory than layers[0]");
    max_length_ = tighter(max_length_, layers_[i]->max_length());
  }
  check(!norm_ || norm_->size() == hidden_size_, "TransformerStack: norm has size ",
        norm_ ? norm_->size() : 0, ", layers have hidden_size ", hidden_size_);
}

TransformerStack::~TransformerStack() = default;

// A cache whose first call was stopped has no lengths yet and is filled again.
bool TransformerStack::reads_memory(const Call& call) const {
  if (!has_cross_attention()) return false;
  if (!call.cross_cache) return true;
  for (size_t s = 0; s < call.cross_cache->size(); ++s) {
    if (call.cross_cache->length(s) > 0) return false;
  }
  return true;
}

void TransformerStack::check_call(const Call& call) const {
  if (call.ids) embeddings_->check_batch(*call.ids);
  const std::span<const int32_t> cu = call.self.cu_q;
  for (size_t s = 0; s + 1 < cu.size() && max_length_ > 0; ++s) {
    const size_t past = call.self_cache ? call.self_cache->length(s) : 0;
    const size_t length = past + sequence_length(cu, s);
    check(length <= max_length_, "sequence ", s, " has ", length, " tokens, the model serves ",
          max_length_, " positions");
  }
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

TransformerStack::Sizes TransformerStack::sizes_of(const Call& call,
                                                   const Schedule& schedule) const {
  Sizes sizes{.tokens = schedule.max_tokens(), .max_keys = longest_sequence(call.self.cu_q)};
  for (size_t s = 0; call.self_cache && s < call.self_cache->size(); ++s) {
    const size_t keys = call.self_cache->length(s) + sequence_length(call.self.cu_q, s);
    sizes.max_keys = std::max(sizes.max_keys, keys);
  }
  if (reads_memory(call)) {
    const std::span<const int32_t> cu = call.cross.cu_k;
    sizes.memory_tokens = schedule.max_tokens_of(cu);
    sizes.max_memory = longest_sequence(cu);
  }
  for (size_t s = 0; call.cross_cache && s < call.cross_cache->size(); ++s) {
    sizes.max_memory = std::max(sizes.max_memory, call.cross_cache->length(s));
  }
  return sizes;
}

void TransformerStack::reserve(Scratch scratch, const Call& call, const Sizes& sizes) const {
  for (auto& hidden_states : scratch.block.hidden_states) {
    reserve_matrix(hidden_states, sizes.tokens, hidden_size_);
  }
  if (call.ids) embeddings_->reserve(scratch.block, sizes.tokens);
  if (reads_memory(call)) {
    reserve_matrix(scratch.block.memory, sizes.memory_tokens,
                   layers_[0]->cross_attention()->key_dim());
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->reserve(scratch, sizes, call.taps.empty() ? nullptr : call.taps[i].position);
  }
}

void TransformerStack::forward_block(Team& team, const Call& call, const Block& block,
                                     Scratch scratch, Sink& sink) const {
  Matrix x = reserve_matrix(scratch.block.hidden_states[0], block.tokens, hidden_size_);
  Matrix y = reserve_matrix(scratch.block.hidden_states[1], block.tokens, hidden_size_);
  if (call.ids) {
    embeddings_->forward(team, *call.ids, block, scratch.block, x);
  } else {
    gather(team, call.rows, call.self.cu_q, block, 0, x);
  }
  Matrix memory;
  if (reads_memory(call)) {
    const std::span<const int32_t> cu = call.cross.cu_k;
    const auto rows = static_cast<size_t>(cu[block.last_sequence] - cu[block.first_sequence]);
    memory = reserve_matrix(scratch.block.memory, rows, layers_[0]->cross_attention()->key_dim());
    gather(team, call.memory, cu, block, 0, memory);
  }
  const TransformerLayer::Call shared{.self = call.self,
                                      .cross = call.cross,
                                      .memory = memory,
                                      .self_cache = call.self_cache,
                                      .cross_cache = call.cross_cache};
  const auto tap = [&](size_t i) {
    if (call.hidden_states.empty() || !call.hidden_states[i].data) return;
    copy_rows(team, x, call.hidden_states[i].slice(block.first_token, block.tokens));
  };
  const TransformerLayer::Taps none;
  for (size_t i = 0; i < layers_.size(); ++i) {
    tap(i);
    const TransformerLayer::Taps& taps = call.taps.empty() ? none : call.taps[i];
    const Matrix result = layers_[i]->forward(team, shared, i, taps, block, x, scratch, y);
    if (result.data == y.data) std::swap(x, y);
  }
  if (norm_) norm_->forward(team, x, x);
  tap(layers_.size());
  sink.take(team, block, x, scratch);
}

void TransformerStack::forward(const Call& call, int num_threads, const StopCheck& stop_check,
                               Sink& sink) const {
  check_call(call);
  reserve_caches(call);
  const auto reserve_all = [&](Scratch scratch, const Schedule& schedule) {
    const Sizes sizes = sizes_of(call, schedule);
    reserve(scratch, call, sizes);
    sink.reserve(scratch, sizes.tokens);
  };
  run_blocks(*workspaces_, call.self.cu_q, hidden_size_, num_threads, stop_check, reserve_all,
             [&](Team& team, const Block& block, Scratch scratch) {
               forward_block(team, call, block, scratch, sink);
             });
  const bool memory_read = call.cross_cache && reads_memory(call);
  if (call.self_cache) call.self_cache->advance(lengths(call.self.cu_q));
  if (memory_read) call.cross_cache->advance(lengths(call.cross.cu_k));
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/single_attention.h"

#include <algorithm>

#include "layers/stack/blocks.h"

namespace simdformer {

SingleAttention::SingleAttention(std::shared_ptr<const MultiheadAttention> attention)
    : attention_(std::move(attention)), workspaces_(std::make_unique<WorkspacePool>()) {}

void SingleAttention::forward_block(Team& team, const Call& call, const Block& block,
                                    Scratch scratch) const {
  const std::span<const int32_t> cu_q = call.pattern.cu_q;
  const std::span<const int32_t> cu_k = call.pattern.cu_k;
  const auto keys = static_cast<size_t>(cu_k[block.last_sequence] - cu_k[block.first_sequence]);
  const size_t out_cols = call.head_outputs ? attention_->context_dim() : attention_->embed_dim();
  const size_t extra = attention_->num_extra_keys();
  const Matrix query = reserve_matrix(scratch.block.normed, block.tokens, attention_->query_dim());
  const Matrix out = reserve_matrix(scratch.block.hidden_states[0], block.tokens, out_cols);
  MultiheadAttention::Inputs inputs{.query = query,
                                    .position = call.position,
                                    .head_mask = call.head_mask,
                                    .context_only = call.head_outputs,
                                    .weights = call.weights};
  gather(team, call.query, cu_q, block, 0, query);
  if (attention_->num_inputs() > 1) {
    const Matrix key = reserve_matrix(scratch.block.memory, keys, attention_->key_dim());
    gather(team, call.key, cu_k, block, extra, key);
    inputs.key = key;
  }
  if (attention_->num_inputs() > 2) {
    const Matrix value =
        reserve_matrix(scratch.block.residual, keys, attention_->value_input_dim());
    gather(team, call.value, cu_k, block, extra, value);
    inputs.value = value;
  }
  attention_->forward(team, call.pattern, block, inputs, scratch, {}, out);
  scatter(team, out, cu_q, block, call.padded_length, call.out);
}

void SingleAttention::forward(const Call& call, int num_threads,
                              const StopCheck& stop_check) const {
  const auto reserve = [&](Scratch scratch, const Schedule& schedule) {
    const size_t q_tokens = schedule.max_tokens();
    const size_t k_tokens = schedule.max_tokens_of(call.pattern.cu_k);
    attention_->reserve(scratch, q_tokens, k_tokens, longest_sequence(call.pattern.cu_k),
                        call.position);
    reserve_matrix(scratch.block.normed, q_tokens, attention_->query_dim());
    reserve_matrix(scratch.block.memory, k_tokens, attention_->key_dim());
    reserve_matrix(scratch.block.residual, k_tokens, attention_->value_input_dim());
    reserve_matrix(scratch.block.hidden_states[0], q_tokens,
                   std::max(attention_->context_dim(), attention_->embed_dim()));
  };
  run_blocks(*workspaces_, call.pattern.cu_q, attention_->embed_dim(), num_threads, stop_check,
             reserve, [&](Team& team, const Block& block, Scratch scratch) {
               forward_block(team, call, block, scratch);
             });
}

}  // namespace simdformer

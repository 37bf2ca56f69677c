// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/attention_module.h"

namespace simdformer {

AttentionModule::AttentionModule(std::shared_ptr<const MultiheadAttention> attention)
    : attention_(std::move(attention)), workspaces_(std::make_unique<WorkspacePool>()) {}

void AttentionModule::forward(const Call& call, int num_threads,
                              const StopCheck& stop_check) const {
  const std::span<const int32_t> cu_q = call.pattern.cu_q;
  const std::span<const int32_t> cu_k = call.pattern.cu_k;
  const auto q_tokens = static_cast<size_t>(cu_q.back());
  const auto k_tokens = static_cast<size_t>(cu_k.back());
  const Block block{0, cu_q.size() - 1, 0, q_tokens};
  const size_t out_cols = call.head_outputs ? attention_->context_dim() : attention_->embed_dim();

  auto workspace = workspaces_->take(static_cast<size_t>(team_size(num_threads)));
  const Scratch scratch = workspace->shared();
  attention_->reserve(scratch, q_tokens, k_tokens, longest_sequence(cu_k), call.position);
  const Matrix query = reserve_matrix(scratch.block.normed, q_tokens, attention_->query_dim());
  const Matrix key = reserve_matrix(scratch.block.memory, k_tokens, attention_->key_dim());
  const Matrix value =
      reserve_matrix(scratch.block.residual, k_tokens, attention_->value_input_dim());
  const Matrix out = reserve_matrix(scratch.block.hidden_states[0], q_tokens, out_cols);
  run_team(num_threads, stop_check, [&](Team& team) {
    gather(team, call.query, cu_q, block, 0, query);
    gather(team, call.key, cu_k, block, attention_->num_extra_keys(), key);
    gather(team, call.value, cu_k, block, attention_->num_extra_keys(), value);
    attention_->forward(team, call.pattern, block,
                        {.query = query,
                         .key = key,
                         .value = value,
                         .position = &call.position,
                         .cache = nullptr,
                         .cache_layer = 0,
                         .head_mask = call.head_mask,
                         .context_only = call.head_outputs,
                         .weights = call.weights},
                        scratch, {}, out);
    scatter(team, out, cu_q, block, call.padded_length, call.out);
  });
  workspaces_->give_back(std::move(workspace));
}

}  // namespace simdformer

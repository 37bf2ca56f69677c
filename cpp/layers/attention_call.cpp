// SPDX-License-Identifier: Apache-2.0
#include "layers/attention_call.h"

#include <algorithm>

namespace simdformer {
namespace {

AttentionArgs head_args(const AttentionCall& call, size_t sequence, size_t head) {
  const Span& span = call.spans[sequence];
  const size_t kv_head = head / (call.num_heads / call.num_kv_heads);
  AttentionArgs args;
  args.num_queries = span.num_queries;
  args.num_keys = span.num_keys;
  args.head_dim = call.head_dim;
  args.value_dim = call.value_dim;
  args.score = call.score;
  args.softmax_scale = call.softmax_scale;
  args.softcap = call.softcap;
  args.q = call.q.at(sequence, head, span.q_begin);
  args.ldq = static_cast<size_t>(call.q.row_stride);
  args.k = call.k.at(sequence, kv_head, span.k_begin);
  args.ldk = static_cast<size_t>(call.k.row_stride);
  args.v = call.v.at(sequence, kv_head, span.k_begin);
  args.ldv = static_cast<size_t>(call.v.row_stride);
  args.additive_weight = call.additive_weight.at(sequence, head, 0);
  args.key_bias = call.key_bias.at(sequence, head, 0);
  args.relative_bias = call.relative_bias.at(sequence, head, 0);
  args.pair_bias = call.pair_bias.at(sequence, head, 0);
  args.ld_pair_bias = static_cast<size_t>(call.pair_bias.row_stride);
  args.key_mask = call.key_mask.at(sequence, head, 0);
  args.pair_mask = call.pair_mask.at(sequence, head, 0);
  args.ld_pair_mask = static_cast<size_t>(call.pair_mask.row_stride);
  args.min_distance = span.min_distance;
  args.max_distance = span.max_distance;
  args.masked_value = call.masked_value;
  args.out = call.out.at(sequence, head, span.q_begin);
  args.ldo = static_cast<size_t>(call.out.row_stride);
  args.weights = call.weights.at(sequence, head, 0);
  args.ld_weights = static_cast<size_t>(call.weights.row_stride);
  args.weights_stage = call.weights_stage;
  return args;
}

}  // namespace

void reserve_scratch(const Kernels& kernels, const AttentionCall& call, AttentionScratch& scratch) {
  size_t max_keys = 0;
  for (const Span& span : call.spans) max_keys = std::max(max_keys, span.num_keys);
  for (Buffer<float>& buffer : scratch) {
    buffer.reserve(kernels.attention_scratch(max_keys, call.head_dim, call.value_dim));
  }
}

void run_attention(Team& team, const Kernels& kernels, const AttentionCall& call,
                   AttentionScratch& scratch) {
  const size_t sequences = call.spans.size();
  // Heads outside: contiguous shares of (head, sequence) pairs then cost about the same.
  team.for_each(call.num_heads * sequences, [&](size_t task) {
    AttentionArgs args = head_args(call, task % sequences, task / sequences);
    args.scratch = scratch[team.rank()].data();
    kernels.attention(args);
  });
}

}  // namespace simdformer

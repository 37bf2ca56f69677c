// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/attention_call.h"

#include <algorithm>

namespace simdformer {
namespace {

// Rows [first, first + rows) of a span's queries and all of its keys, for one head.
AttentionArgs head_args(const AttentionCall& call, size_t sequence, size_t head, size_t first,
                        size_t rows) {
  const Span& span = call.spans[sequence];
  const size_t kv_head = head / (call.num_heads / call.num_kv_heads);
  const auto shift = static_cast<int64_t>(first);
  const bool has_min = span.min_distance > -AttentionArgs::kUnbounded;
  const bool has_max = span.max_distance < AttentionArgs::kUnbounded;
  AttentionArgs args;
  args.num_queries = rows;
  args.num_keys = span.num_keys;
  args.head_dim = call.head_dim;
  args.value_dim = call.value_dim;
  args.score = call.score;
  args.softmax_scale = call.head_scales ? call.head_scales[head] : call.softmax_scale;
  args.softcap = call.softcap;
  args.q = call.q.at(sequence, head, span.q_begin + first);
  args.ldq = static_cast<size_t>(call.q.row_stride);
  args.k = call.k.at(sequence, kv_head, span.k_begin);
  args.ldk = static_cast<size_t>(call.k.row_stride);
  args.v = call.v.at(sequence, kv_head, span.k_begin);
  args.ldv = static_cast<size_t>(call.v.row_stride);
  args.additive_weight = call.additive_weight.at(sequence, head, 0);
  args.exact_tanh = call.exact_tanh;
  args.key_bias = call.key_bias.at(sequence, head, span.k_begin);
  args.relative_bias = call.relative_bias.at(sequence, head, 0);
  if (args.relative_bias) {
    // The kernel reads distance j - i of these rows at j - i + rows - 1.
    args.relative_bias += static_cast<int64_t>(call.relative_zero) - span.origin - shift -
                          static_cast<int64_t>(rows) + 1;
  }
  args.pair_bias = call.pair_bias.at(sequence, head, first);
  args.ld_pair_bias = static_cast<size_t>(call.pair_bias.row_stride);
  args.key_mask = call.key_mask.at(sequence, head, span.k_begin);
  args.pair_mask = call.pair_mask.at(sequence, head, first);
  args.ld_pair_mask = static_cast<size_t>(call.pair_mask.row_stride);
  args.min_distance = has_min ? span.min_distance + shift : span.min_distance;
  args.max_distance = has_max ? span.max_distance + shift : span.max_distance;
  args.masked_value = call.masked_value;
  args.out = call.out.at(sequence, head, span.q_begin + first);
  args.ldo = static_cast<size_t>(call.out.row_stride);
  args.weights = call.weights.at(sequence, head, span.q_begin + first);
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
  const size_t heads = call.num_heads * sequences;
  if (heads == 0) return;
  // Each block of queries packs K and V again, so heads are cut only if members would idle.
  const size_t blocks = (team.size() + heads - 1) / heads;
  // Heads outside: contiguous shares of (head, sequence) pairs then cost about the same.
  team.for_each(heads * blocks, [&](size_t task) {
    const size_t pair = task / blocks;
    const size_t block = task % blocks;
    const size_t queries = call.spans[pair % sequences].num_queries;
    const size_t first = block * queries / blocks;
    const size_t rows = (block + 1) * queries / blocks - first;
    if (rows == 0) return;
    AttentionArgs args = head_args(call, pair % sequences, pair / sequences, first, rows);
    args.scratch = scratch[team.rank()].data();
    kernels.attention(args);
  });
}

}  // namespace simdformer

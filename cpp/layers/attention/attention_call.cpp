// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/attention_call.h"

#include "layers/parts/row_shares.h"

namespace simdformer {
namespace {

// Some queries of a span with all of its keys, for one head.
struct Part {
  size_t head;
  Span span;
  size_t first;  // the first query
  size_t rows;
};

void set_operands(const AttentionCall& call, const Part& part, AttentionArgs& args) {
  const Span& span = part.span;
  const size_t kv_head = part.head / (call.num_heads / call.num_kv_heads);
  args.num_queries = part.rows;
  args.num_keys = span.num_keys;
  args.head_dim = call.head_dim;
  args.value_dim = call.value_dim;
  args.q = call.q.at(span.sequence, part.head, span.q_begin + part.first);
  args.ldq = static_cast<size_t>(call.q.row_stride);
  args.out = call.out.at(span.sequence, part.head, span.q_begin + part.first);
  args.ldo = static_cast<size_t>(call.out.row_stride);
  if (!call.cache) {
    args.k = call.k.at(span.sequence, kv_head, span.k_begin);
    args.ldk = static_cast<size_t>(call.k.row_stride);
    args.v = call.v.at(span.sequence, kv_head, span.k_begin);
    args.ldv = static_cast<size_t>(call.v.row_stride);
    return;
  }
  if (span.num_keys == 0) return;
  call.cache->read(span.sequence, call.cache_layer, call.cache_shape, kv_head, args);
}

void set_masks(const AttentionCall& call, const Part& part, AttentionArgs& args) {
  const Span& span = part.span;
  const size_t group = call.key_bias_by_kv_head ? call.num_heads / call.num_kv_heads : 1;
  const auto shift = static_cast<int64_t>(part.first);
  const bool has_min = span.min_distance > -AttentionArgs::kUnbounded;
  const bool has_max = span.max_distance < AttentionArgs::kUnbounded;
  // If the cache stores biases, they are already set.
  if (!args.key_bias) {
    args.key_bias = call.key_bias.at(span.sequence, part.head / group, span.k_begin);
  }
  args.relative_bias = call.relative_bias.at(span.sequence, part.head, 0);
  if (args.relative_bias) {
    // The kernel expects the bias of distance j - i of these rows at j - i + rows - 1.
    args.relative_bias += static_cast<int64_t>(call.relative_zero) - span.origin - shift -
                          static_cast<int64_t>(part.rows) + 1;
  }
  args.pair_bias = call.pair_bias.at(span.sequence, part.head, part.first);
  args.ld_pair_bias = static_cast<size_t>(call.pair_bias.row_stride);
  args.key_mask = call.key_mask.at(span.sequence, part.head, span.k_begin);
  args.pair_mask = call.pair_mask.at(span.sequence, part.head, part.first);
  args.ld_pair_mask = static_cast<size_t>(call.pair_mask.row_stride);
  args.min_distance = has_min ? span.min_distance + shift : span.min_distance;
  args.max_distance = has_max ? span.max_distance + shift : span.max_distance;
}

void set_weights(const AttentionCall& call, const Part& part, AttentionArgs& args) {
  const int32_t place =
      call.weights_head ? call.weights_head[part.head] : static_cast<int32_t>(part.head);
  if (place < 0) return;
  args.weights = call.weights.at(part.span.sequence, static_cast<size_t>(place),
                                 part.span.weights_begin + part.first);
  args.ld_weights = static_cast<size_t>(call.weights.row_stride);
  args.weights_stage = call.weights_stage;
}

// The step of q in 16-bit integers depends on all queries of a head, so it is the same however they
// are split.
float q_magnitude(const Kernels& kernels, const AttentionCall& call, const Part& part) {
  if (!call.in_s16 || part.rows == part.span.num_queries) return 0.0f;
  return kernels.largest_magnitude(part.span.num_queries, call.head_dim,
                                   call.q.at(part.span.sequence, part.head, part.span.q_begin),
                                   static_cast<size_t>(call.q.row_stride));
}

void attend_part(const Kernels& kernels, const AttentionCall& call, const Part& part,
                 MemberScratch& scratch) {
  AttentionArgs args;
  args.score = call.score;
  args.softmax_scale = call.head_scales ? call.head_scales[part.head] : call.softmax_scale;
  args.softcap = call.softcap;
  args.masked_value = call.masked_value;
  args.additive_weight = call.additive_weight.at(part.span.sequence, part.head, 0);
  args.exact_tanh = call.exact_tanh;
  set_operands(call, part, args);
  set_masks(call, part, args);
  set_weights(call, part, args);
  args.scratch = scratch.attention.data();
  if (call.embeddings) {
    attend_relative(kernels, *call.embeddings, part.head,
                    static_cast<size_t>(part.span.origin) + part.first, args,
                    scratch.relative.data());
  } else if (call.in_s16) {
    args.q_magnitude = q_magnitude(kernels, call, part);
    kernels.attention_s16(args);
  } else {
    kernels.attention(args);
  }
}

}  // namespace

void reserve_attention(const Kernels& kernels, const AttentionSizes& sizes,
                       std::span<MemberScratch> members) {
  const auto size = sizes.in_s16 ? kernels.attention_s16_scratch : kernels.attention_scratch;
  const size_t floats = size(sizes.max_keys, sizes.head_dim, sizes.value_dim);
  for (MemberScratch& member : members) member.attention.reserve(floats);
  if (!sizes.embeddings) return;
  const size_t relative = relative_scratch(*sizes.embeddings, sizes.max_keys, sizes.head_dim);
  for (MemberScratch& member : members) member.relative.reserve(relative);
}

void attend(Team& team, const Kernels& kernels, const AttentionCall& call,
            std::span<MemberScratch> members) {
  // Heads in the outer loop, so that contiguous shares of (head, span) pairs have similar costs.
  const auto span_of = [&](size_t pair) { return call.span(pair % call.num_spans); };
  for_each_rows(
      team, call.num_heads * call.num_spans, [&](size_t pair) { return span_of(pair).num_queries; },
      [&](size_t pair, size_t first, size_t rows) {
        const Part part{pair / call.num_spans, span_of(pair), first, rows};
        attend_part(kernels, call, part, members[team.rank()]);
      });
}

}  // namespace simdformer

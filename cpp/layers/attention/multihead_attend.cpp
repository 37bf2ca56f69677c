// SPDX-License-Identifier: Apache-2.0
// What MultiheadAttention does with queries, keys and values once they are there.
#include <algorithm>

#include "layers/attention/multihead_step.h"

namespace simdformer {

// Adds the new keys and values to the cache.
void MultiheadAttention::store(Team& team, const Step& step) const {
  const KVShape shape = kv_shape();
  const size_t heads = options_.num_kv_heads;
  team.for_each(heads * step.sequences(), [&](size_t task) {
    const size_t s = step.sequence(task % step.sequences());
    const size_t h = task / step.sequences();
    const size_t count = step.new_keys(s);
    if (count == 0) return;
    KVCache::Sequence& sequence = (*step.inputs.cache)[s];
    KVCache::Layer& layer = sequence.layers[step.inputs.cache_layer];
    const size_t begin = sequence.length;
    const size_t row = step.k_row(s);
    const float* k = step.k.row(row) + h * head_dim_;
    const float* v = step.v.row(row) + h * value_dim_;
    if (shape.packed) {
      shape.kernels->pack_keys(sequence.capacity, head_dim_, begin, begin + count, k, step.k.stride,
                               layer.keys.data() + h * shape.key_floats(sequence.capacity));
      shape.kernels->pack_values(sequence.capacity, value_dim_, begin, begin + count, v,
                                 step.v.stride,
                                 layer.values.data() + h * shape.value_floats(sequence.capacity));
      if (shape.key_bias) {
        std::copy_n(step.key_bias.row(h) + row, count,
                    layer.key_bias.data() + h * sequence.capacity + begin);
      }
      return;
    }
    for (size_t j = 0; j < count; ++j) {
      const size_t token = (begin + j) * heads + h;
      std::copy_n(k + j * step.k.stride, head_dim_, layer.keys.data() + token * head_dim_);
      std::copy_n(v + j * step.v.stride, value_dim_, layer.values.data() + token * value_dim_);
    }
  });
}

void MultiheadAttention::read_cache(const Step& step, size_t s, size_t kv_head,
                                    AttentionArgs& args) const {
  const KVShape shape = kv_shape();
  const KVCache::Sequence& sequence = (*step.inputs.cache)[s];
  args.num_keys = sequence.length + step.new_keys(s);
  if (args.num_keys == 0) return;
  const KVCache::Layer& layer = sequence.layers[step.inputs.cache_layer];
  if (shape.packed) {
    args.packed_k = layer.keys.data() + kv_head * shape.key_floats(sequence.capacity);
    args.packed_v = layer.values.data() + kv_head * shape.value_floats(sequence.capacity);
    args.packed_capacity = sequence.capacity;
    if (shape.key_bias) args.key_bias = layer.key_bias.data() + kv_head * sequence.capacity;
  } else {
    args.k = layer.keys.data() + kv_head * head_dim_;
    args.ldk = step.k.cols;
    args.v = layer.values.data() + kv_head * value_dim_;
    args.ldv = step.v.cols;
  }
}

// Distances j - i count both from the call's first query and the cache's first key.
void MultiheadAttention::set_window(const Step& step, size_t s, AttentionArgs& args) const {
  const auto past = static_cast<int64_t>(step.past(s));
  int64_t right = options_.window_right;
  if (step.pattern.causal) right = std::min<int64_t>(right, 0);
  if (options_.window_left < AttentionArgs::kUnbounded) {
    args.min_distance = past - options_.window_left;
  }
  if (right < AttentionArgs::kUnbounded) args.max_distance = past + right;
}

AttentionArgs MultiheadAttention::head_args(const Step& step, size_t s, size_t head) const {
  const AttentionPattern& p = step.pattern;
  const size_t kv_head = head / (options_.num_heads / options_.num_kv_heads);
  AttentionArgs args;
  args.num_queries = step.num_queries(s);
  args.head_dim = head_dim_;
  args.value_dim = value_dim_;
  args.score = options_.score;
  args.softmax_scale = scale_of(head);
  args.softcap = options_.softcap;
  args.masked_value = options_.masked_value;
  args.q = step.q.row(step.q_row(s)) + head * head_dim_;
  args.ldq = step.q.stride;
  args.key_bias = p.key_bias.at(s, 0, 0);
  if (step.inputs.cache) {
    read_cache(step, s, kv_head, args);
  } else {
    args.num_keys = step.new_keys(s);
    args.k = step.k.row(step.k_row(s)) + kv_head * head_dim_;
    args.ldk = step.k.stride;
    args.v = step.v.row(step.k_row(s)) + kv_head * value_dim_;
    args.ldv = step.v.stride;
    if (options_.key_norm_bias) args.key_bias = step.key_bias.row(kv_head) + step.k_row(s);
  }
  if (parts_.additive_weight.size()) {
    args.additive_weight = parts_.additive_weight.data() + head * head_dim_;
  }
  if (const PositionTables* t = step.inputs.position; t && t->relative) {
    // The kernel reads distance j - i at j - i + num_queries - 1, i and j from the call's first.
    args.relative_bias = t->relative + head * t->relative_size + t->relative_center -
                         (step.past(s) + args.num_queries - 1);
  }
  args.pair_bias = p.pair_bias.at(s, head, 0);
  args.ld_pair_bias = static_cast<size_t>(p.pair_bias.row_stride);
  args.key_mask = p.key_mask.at(s, 0, 0);
  args.pair_mask = p.pair_mask.at(s, head, 0);
  args.ld_pair_mask = static_cast<size_t>(p.pair_mask.row_stride);
  set_window(step, s, args);
  args.out = step.context.row(step.q_row(s)) + head * value_dim_;
  args.ldo = step.context.stride;
  args.weights = step.inputs.weights.at(s, head, 0);
  args.ld_weights = static_cast<size_t>(step.inputs.weights.row_stride);
  return args;
}

void MultiheadAttention::attend(Team& team, const Step& step) const {
  const Kernels& kernels = parts_.query->kernels();
  const PositionTables* position = step.inputs.position;
  const RelativeEmbeddings* embeddings = position ? position->embeddings : nullptr;
  // Heads outside: contiguous shares of (head, sequence) pairs then cost about the same.
  team.for_each(options_.num_heads * step.sequences(), [&](size_t task) {
    const size_t s = step.sequence(task % step.sequences());
    if (step.num_queries(s) == 0) return;
    const size_t head = task / step.sequences();
    MemberScratch& scratch = step.scratch.members[team.rank()];
    AttentionArgs args = head_args(step, s, head);
    args.scratch = scratch.attention.data();
    if (embeddings) {
      attend_relative(kernels, *embeddings, head, step.past(s), args, scratch.relative.data());
    } else {
      kernels.attention(args);
    }
  });
}

void MultiheadAttention::scale_heads(Team& team, const Step& step) const {
  team.for_each(options_.num_heads * step.sequences(), [&](size_t task) {
    const size_t s = step.sequence(task % step.sequences());
    const size_t head = task / step.sequences();
    const float factor = *step.inputs.head_mask.at(s, head, 0);
    // By selection: what a head that is left out holds must not matter.
    const auto scale = [&](size_t n, float* x) {
      for (size_t i = 0; i < n; ++i) x[i] = factor == 0.0f ? 0.0f : factor * x[i];
    };
    const size_t keys = step.past(s) + step.new_keys(s);
    for (size_t i = 0; i < step.num_queries(s); ++i) {
      scale(value_dim_, step.context.row(step.q_row(s) + i) + head * value_dim_);
      if (step.inputs.weights) scale(keys, step.inputs.weights.at(s, head, i));
    }
  });
}

}  // namespace simdformer

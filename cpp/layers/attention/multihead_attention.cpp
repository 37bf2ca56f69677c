// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/multihead_attention.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

MultiheadAttention::MultiheadAttention(Parts parts, const AttentionOptions& options)
    : parts_(std::move(parts)), options_(options) {
  const size_t num_heads = options_.num_heads;
  const size_t num_kv_heads = options_.num_kv_heads;
  check(num_heads > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
        "MultiheadAttention: num_heads ", num_heads,
        " must be a positive multiple of num_kv_heads ", num_kv_heads);
  check(options_.softmax_scale > 0.0f, "MultiheadAttention: softmax_scale must be > 0, got ",
        options_.softmax_scale);
  check(parts_.output->in_features() % num_heads == 0, "MultiheadAttention: output takes ",
        parts_.output->in_features(), " features, not divisible by num_heads ", num_heads);
  value_dim_ = parts_.output->in_features() / num_heads;
  check_projections();
  const Norm* norm = parts_.query_norm.get();
  norms_together_ = norm && norm->size() != head_dim_ && norm->size() == num_heads * head_dim_;
  check_parts();
  int8_ = std::all_of(parts_.projections.begin(), parts_.projections.end(), is_int8);
}

// Finds head_dim: queries have num_heads * head_dim features, keys num_kv_heads * head_dim, and
// values num_kv_heads * value_dim.
void MultiheadAttention::check_projections() {
  check(num_inputs() >= 1 && num_inputs() <= 3, "MultiheadAttention: projections has ",
        num_inputs(), " groups, expected 1 to 3");
  for (const LinearGroup& group : parts_.projections) {
    check(!group.empty(), "projections contains an empty group");
    for (const auto& linear : group) {
      check(linear->in_features() == group[0]->in_features(), "projections: a group's maps take ",
            group[0]->in_features(), " and ", linear->in_features(), " features");
    }
  }
  const size_t heads = options_.num_heads;
  const size_t kv_heads = options_.num_kv_heads;
  size_t features[3] = {};
  for (size_t g = 0; g < num_inputs(); ++g) features[g] = out_features(parts_.projections[g]);
  const size_t values = kv_heads * value_dim_;
  const size_t dim_heads = num_inputs() == 1 ? heads + kv_heads : heads;
  const size_t dims = num_inputs() == 1 ? features[0] - std::min(features[0], values) : features[0];
  check(dims > 0 && dims % dim_heads == 0, "MultiheadAttention: projections give ", features[0],
        " features, which are not ", heads, " heads of queries",
        num_inputs() == 1 ? concat(" and ", kv_heads, " of keys and values") : "");
  head_dim_ = dims / dim_heads;
  const size_t keys = kv_heads * head_dim_;
  check(num_inputs() != 2 || features[1] == keys + values, "MultiheadAttention: keys and values ",
        "have ", features[1], " features, expected ", kv_heads, " heads of ", head_dim_, " and ",
        value_dim_);
  check(num_inputs() != 3 || features[1] == keys, "MultiheadAttention: key gives ", features[1],
        " features, expected ", kv_heads, " heads of ", head_dim_);
  check(num_inputs() != 3 || features[2] == values, "MultiheadAttention: value gives ", features[2],
        " features, expected ", kv_heads, " heads of ", value_dim_);
}

void MultiheadAttention::check_parts() const {
  const size_t heads = options_.num_heads;
  check(options_.score != Score::kAdditive || parts_.additive_weight.size() == heads * head_dim_,
        "MultiheadAttention: additive_weight has ", parts_.additive_weight.size(),
        " elements, expected ", heads * head_dim_);
  const size_t scales = parts_.head_scales.size();
  check(scales == 0 || scales == heads, "MultiheadAttention: head_scales has ", scales,
        " elements, expected ", heads);
  check(scales == 0 || !options_.key_norm_bias || options_.num_kv_heads == heads,
        "MultiheadAttention: head_scales and key_norm_bias need as many heads of keys as of "
        "queries");
  const auto check_norm = [&](const std::shared_ptr<const Norm>& norm, size_t num_heads) {
    const size_t size = norms_together_ ? num_heads * head_dim_ : head_dim_;
    check(!norm || norm->size() == size, "MultiheadAttention: a norm has size ",
          norm ? norm->size() : 0, ", head_dim is ", head_dim_, " of ", num_heads, " heads");
  };
  check_norm(parts_.query_norm, heads);
  check_norm(parts_.key_norm, options_.num_kv_heads);
  check(num_extra_keys() == 0 || num_inputs() > 1,
        "MultiheadAttention: extra keys need keys that are projected apart from queries");
  const size_t kv = options_.num_kv_heads;
  const ExtraKeys& extra = parts_.extra;
  check(extra.key.size() == 0 || extra.key.size() == kv * head_dim_, "bias_k must have ",
        kv * head_dim_, " elements, got ", extra.key.size());
  check(extra.key.size() == 0 || extra.value.size() == kv * value_dim_, "bias_v must have ",
        kv * value_dim_, " elements, got ", extra.value.size());
  if (position()) check_position(*position());
}

void MultiheadAttention::check_position(const Positions& p) const {
  const size_t heads = options_.num_heads;
  check(2 * p.pairs <= head_dim_, "position rotates ", p.pairs, " pairs of features, head_dim is ",
        head_dim_);
  check(p.relative_size == 0 || p.relative_heads == heads, "position has ", p.relative_heads,
        " heads, attention has ", heads);
  if (p.embeddings) check_sizes(*p.embeddings, heads, head_dim_);
}

float MultiheadAttention::scale_of(size_t head) const {
  return parts_.head_scales.size() ? parts_.head_scales[head] : options_.softmax_scale;
}

KVShape MultiheadAttention::kv_shape() const {
  return {.kernels = &parts_.output->kernels(),
          .num_kv_heads = options_.num_kv_heads,
          .head_dim = head_dim_,
          .value_dim = value_dim_,
          .packed = options_.score == Score::kDot,
          .key_bias = options_.key_norm_bias};
}

void MultiheadAttention::reserve(Scratch scratch, size_t q_tokens, size_t k_tokens, size_t max_keys,
                                 const Positions* given) const {
  const Positions* p = given ? given : position();
  for (size_t g = 0; g < num_inputs(); ++g) {
    reserve_matrix(scratch.block.projected[g], g == 0 ? q_tokens : k_tokens,
                   out_features(parts_.projections[g]));
  }
  reserve_matrix(scratch.block.context, q_tokens, parts_.output->in_features());
  const size_t keys = num_inputs() == 1 ? q_tokens : k_tokens;
  if (options_.key_norm_bias) {
    reserve_matrix(scratch.block.key_bias, options_.num_kv_heads, keys);
  }
  reserve_attention(parts_.output->kernels(),
                    {.max_keys = max_keys,
                     .head_dim = head_dim_,
                     .value_dim = value_dim_,
                     .in_s16 = int8_,
                     .embeddings = p ? p->embeddings.get() : nullptr},
                    scratch.members);
}

}  // namespace simdformer

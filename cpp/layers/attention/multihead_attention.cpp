// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/multihead_attention.h"

#include <algorithm>

#include "base/check.h"
#include "layers/attention/multihead_step.h"

namespace simdformer {

MultiheadAttention::MultiheadAttention(Parts parts, const AttentionOptions& options)
    : parts_(std::move(parts)), options_(options) {
  const size_t num_heads = options_.num_heads;
  const size_t num_kv_heads = options_.num_kv_heads;
  check(num_heads > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
        "MultiheadAttention: num_heads ", num_heads,
        " must be a positive multiple of num_kv_heads ", num_kv_heads);
  check(parts_.query->out_features() % num_heads == 0,
        "MultiheadAttention: ", parts_.query->out_features(),
        " query features are not divisible by num_heads ", num_heads);
  check(options_.softmax_scale > 0.0f, "MultiheadAttention: softmax_scale must be > 0, got ",
        options_.softmax_scale);
  head_dim_ = parts_.query->out_features() / num_heads;
  check(parts_.key->out_features() == num_kv_heads * head_dim_, "MultiheadAttention: key gives ",
        parts_.key->out_features(), " features, expected ", num_kv_heads, " heads of ", head_dim_);
  check(parts_.output->in_features() % num_heads == 0, "MultiheadAttention: output takes ",
        parts_.output->in_features(), " features, not divisible by num_heads ", num_heads);
  value_dim_ = parts_.output->in_features() / num_heads;
  check(parts_.value->out_features() == num_kv_heads * value_dim_,
        "MultiheadAttention: value gives ", parts_.value->out_features(), " features, expected ",
        num_kv_heads, " heads of ", value_dim_);
  check(
      options_.score != Score::kAdditive || parts_.additive_weight.size() == num_heads * head_dim_,
      "MultiheadAttention: additive_weight has ", parts_.additive_weight.size(),
      " elements, expected ", num_heads * head_dim_);
  check_scales_and_norms();
}

void MultiheadAttention::check_scales_and_norms() const {
  const size_t scales = parts_.head_scales.size();
  check(scales == 0 || scales == options_.num_heads, "MultiheadAttention: head_scales has ", scales,
        " elements, expected ", options_.num_heads);
  check(scales == 0 || !options_.key_norm_bias || options_.num_kv_heads == options_.num_heads,
        "MultiheadAttention: head_scales and key_norm_bias need as many heads of keys as of "
        "queries");
  for (const Norm* norm : {parts_.query_norm.get(), parts_.key_norm.get()}) {
    check(!norm || norm->size() == head_dim_, "MultiheadAttention: a norm has size ",
          norm ? norm->size() : 0, ", head_dim is ", head_dim_);
  }
}

float MultiheadAttention::scale_of(size_t head) const {
  return parts_.head_scales.size() ? parts_.head_scales[head] : options_.softmax_scale;
}

KVShape MultiheadAttention::kv_shape() const {
  return {.kernels = &parts_.query->kernels(),
          .num_kv_heads = options_.num_kv_heads,
          .head_dim = head_dim_,
          .value_dim = value_dim_,
          .packed = options_.score == Score::kDot,
          .key_bias = options_.key_norm_bias};
}

void MultiheadAttention::reserve(Scratch scratch, size_t q_tokens, size_t k_tokens, size_t max_keys,
                                 const PositionTables& position) const {
  reserve_matrix(scratch.block.qkv, q_tokens, parts_.query->out_features());
  reserve_matrix(scratch.block.keys, k_tokens, parts_.key->out_features());
  reserve_matrix(scratch.block.values, k_tokens, parts_.value->out_features());
  reserve_matrix(scratch.block.context, q_tokens, parts_.output->in_features());
  if (options_.key_norm_bias) {
    reserve_matrix(scratch.block.key_bias, options_.num_kv_heads, k_tokens);
  }
  const size_t floats = parts_.query->kernels().attention_scratch(max_keys, head_dim_, value_dim_);
  for (MemberScratch& member : scratch.members) member.attention.reserve(floats);
  if (!position.embeddings) return;
  const size_t relative = relative_scratch(*position.embeddings, max_keys, head_dim_);
  for (MemberScratch& member : scratch.members) member.relative.reserve(relative);
}

void MultiheadAttention::forward(Team& team, const AttentionPattern& pattern, const Block& block,
                                 const Inputs& inputs, Scratch scratch, const Epilogue& epilogue,
                                 Matrix y) const {
  BlockScratch& buffers = scratch.block;
  const size_t rows = inputs.query.rows;
  const size_t keys = inputs.key.rows;
  const Step step{.pattern = pattern,
                  .block = block,
                  .inputs = inputs,
                  .q = reserve_matrix(buffers.qkv, rows, parts_.query->out_features()),
                  .k = reserve_matrix(buffers.keys, keys, parts_.key->out_features()),
                  .v = reserve_matrix(buffers.values, keys, parts_.value->out_features()),
                  .key_bias = options_.key_norm_bias
                                  ? reserve_matrix(buffers.key_bias, options_.num_kv_heads, keys)
                                  : Matrix{},
                  .context = inputs.context_only ? y
                                                 : reserve_matrix(buffers.context, rows,
                                                                  parts_.output->in_features()),
                  .scratch = scratch};
  project(team, inputs, step);
  if (num_extra_keys() > 0) place_extra_keys(team, step);
  transform(team, step);
  if (options_.key_norm_bias) add_key_biases(team, step);
  if (inputs.cache) store(team, step);
  attend(team, step);
  if (inputs.head_mask) scale_heads(team, step);
  if (!inputs.context_only) parts_.output->forward(team, step.context, y, epilogue);
}

void MultiheadAttention::project(Team& team, const Inputs& inputs, const Step& step) const {
  const Projection projections[] = {{parts_.query.get(), inputs.query, step.q},
                                    {parts_.key.get(), inputs.key, step.k},
                                    {parts_.value.get(), inputs.value, step.v}};
  forward_all(team, std::span(projections).first(step.k.rows ? 3 : 1));
}

void MultiheadAttention::place_extra_keys(Team& team, const Step& step) const {
  const auto& [key, value, zero] = parts_.extra;
  team.for_each(step.sequences(), [&](size_t i) {
    size_t row = step.k_row(step.sequence(i) + 1) - num_extra_keys();
    if (key.size()) {
      std::copy_n(key.data(), key.size(), step.k.row(row));
      std::copy_n(value.data(), value.size(), step.v.row(row));
      ++row;
    }
    if (zero) {
      std::fill_n(step.k.row(row), step.k.cols, 0.0f);
      std::fill_n(step.v.row(row), step.v.cols, 0.0f);
    }
  });
}

// Normalisation and rotation of queries and keys, each head of a sequence by itself.
void MultiheadAttention::transform(Team& team, const Step& step) const {
  const bool rotary = step.inputs.position && step.inputs.position->cos;
  if (!rotary && !options_.normalize && !parts_.query_norm && !parts_.key_norm) return;
  const size_t heads = options_.num_heads + options_.num_kv_heads;
  team.for_each(heads * step.sequences(), [&](size_t task) {
    const size_t s = step.sequence(task % step.sequences());
    const size_t head = task / step.sequences();
    const bool is_key = head >= options_.num_heads;
    const Matrix& all = is_key ? step.k : step.q;
    const size_t row = is_key ? step.k_row(s) : step.q_row(s);
    const size_t rows = is_key ? step.new_keys(s) : step.num_queries(s);
    if (rows == 0) return;
    const size_t column = (is_key ? head - options_.num_heads : head) * head_dim_;
    const Norm* norm = (is_key ? parts_.key_norm : parts_.query_norm).get();
    Team alone = team.alone();
    transform_head(alone, norm, step.inputs.position, step.past(s),
                   {all.row(row) + column, rows, head_dim_, all.stride});
  });
}

// x: one head's features of consecutive positions, the first one's number given.
void MultiheadAttention::transform_head(Team& alone, const Norm* norm, const PositionTables* tables,
                                        size_t position, Matrix x) const {
  constexpr float kEps = 1e-12f;  // torch.nn.functional.normalize
  const Kernels& kernels = parts_.query->kernels();
  if (norm) norm->forward(alone, x, x);
  for (size_t i = 0; options_.normalize && i < x.rows; ++i) {
    kernels.l2_normalize(1, head_dim_, kEps, x.row(i), x.row(i));
  }
  if (!tables || !tables->cos) return;
  const size_t pairs = tables->rotary_dim / 2;
  kernels.rotary({.rows = x.rows,
                  .cols = head_dim_,
                  .pairs = pairs,
                  .interleaved = tables->rotary_interleaved,
                  .x = x.data,
                  .ldx = x.stride,
                  .cos = tables->cos + position * pairs,
                  .sin = tables->sin + position * pairs,
                  .ld_table = pairs,
                  .y = x.data,
                  .ldy = x.stride});
}

void MultiheadAttention::add_key_biases(Team& team, const Step& step) const {
  const Kernels& kernels = parts_.query->kernels();
  team.for_each(step.sequences(), [&](size_t i) {
    const size_t s = step.sequence(i);
    const float* given = step.pattern.key_bias.at(s, 0, 0);
    for (size_t j = 0; j < step.new_keys(s); ++j) {
      const size_t row = step.k_row(s) + j;
      const float* k = step.k.row(row);
      for (size_t h = 0; h < options_.num_kv_heads; ++h, k += head_dim_) {
        float norm = 0.0f;
        kernels.squared_norms(1, head_dim_, k, head_dim_, &norm);
        step.key_bias.row(h)[row] = -0.5f * scale_of(h) * norm + (given ? given[j] : 0.0f);
      }
    }
  });
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// One call of MultiheadAttention.
#include <algorithm>

#include "layers/attention/multihead_attention.h"
#include "layers/parts/row_shares.h"

namespace simdformer {
namespace {

// Columns [begin, begin + count) of a matrix.
Matrix columns(const Matrix& x, size_t begin, size_t count) {
  return {x.data + begin, x.rows, count, x.stride};
}

}  // namespace

// The state of one call.
struct MultiheadAttention::Step {
  const AttentionPattern& pattern;
  const Block& block;
  const Inputs& inputs;
  Scratch scratch;
  std::array<Matrix, 3> projected;  // of each group
  Matrix q;
  Matrix k;  // no rows if the cache holds all keys
  Matrix v;
  Matrix key_bias;  // (num_kv_heads, rows of k)
  Matrix context;
  const Positions* position;

  size_t sequences() const { return block.last_sequence - block.first_sequence; }
  size_t sequence(size_t i) const { return block.first_sequence + i; }
  size_t q_row(size_t s) const {
    return static_cast<size_t>(pattern.cu_q[s] - pattern.cu_q[block.first_sequence]);
  }
  size_t k_row(size_t s) const {
    return static_cast<size_t>(pattern.cu_k[s] - pattern.cu_k[block.first_sequence]);
  }
  size_t num_queries(size_t s) const { return q_row(s + 1) - q_row(s); }
  size_t new_keys(size_t s) const { return k.rows ? k_row(s + 1) - k_row(s) : 0; }
  size_t past(size_t s) const { return inputs.cache ? inputs.cache->length(s) : 0; }
};

MultiheadAttention::Step MultiheadAttention::make_step(const AttentionPattern& pattern,
                                                       const Block& block, const Inputs& inputs,
                                                       Scratch scratch, Matrix y) const {
  BlockScratch& buffers = scratch.block;
  Step step{.pattern = pattern,
            .block = block,
            .inputs = inputs,
            .scratch = scratch,
            .projected = {},
            .q = {},
            .k = {},
            .v = {},
            .key_bias = {},
            .context = {},
            .position = inputs.position ? inputs.position : position()};
  const ConstMatrix given[] = {inputs.query, inputs.key, inputs.value};
  for (size_t g = 0; g < num_inputs(); ++g) {
    step.projected[g] =
        reserve_matrix(buffers.projected[g], given[g].rows, out_features(parts_.projections[g]));
  }
  const size_t queries = options_.num_heads * head_dim_;
  const size_t keys = options_.num_kv_heads * head_dim_;
  const size_t values = options_.num_kv_heads * value_dim_;
  const Matrix& with_keys = step.projected[num_inputs() == 1 ? 0 : 1];
  const size_t key_begin = num_inputs() == 1 ? queries : 0;
  step.q = columns(step.projected[0], 0, queries);
  step.k = columns(with_keys, key_begin, keys);
  step.v = num_inputs() == 3 ? step.projected[2] : columns(with_keys, key_begin + keys, values);
  if (options_.key_norm_bias) {
    step.key_bias = reserve_matrix(buffers.key_bias, options_.num_kv_heads, step.k.rows);
  }
  step.context = inputs.context_only ? y
                                     : reserve_matrix(buffers.context, inputs.query.rows,
                                                      parts_.output->in_features());
  return step;
}

void MultiheadAttention::forward(Team& team, const AttentionPattern& pattern, const Block& block,
                                 const Inputs& inputs, Scratch scratch, const Epilogue& epilogue,
                                 Matrix y) const {
  const Step step = make_step(pattern, block, inputs, scratch, y);
  project(team, step);
  if (num_extra_keys() > 0) place_extra_keys(team, step);
  transform(team, step);
  if (options_.key_norm_bias) add_key_biases(team, step);
  if (inputs.cache) store(team, step);
  attend_all(team, step);
  if (inputs.head_mask) scale_heads(team, step);
  if (inputs.head_outputs.data) {
    const size_t first = static_cast<size_t>(pattern.cu_q[block.first_sequence]);
    copy_rows(team, step.context, inputs.head_outputs.slice(first, step.context.rows));
  }
  if (!inputs.context_only) parts_.output->forward(team, step.context, y, epilogue);
}

void MultiheadAttention::project(Team& team, const Step& step) const {
  const ConstMatrix given[] = {step.inputs.query, step.inputs.key, step.inputs.value};
  std::array<GroupProjection, 3> all;
  size_t count = 0;
  for (size_t g = 0; g < num_inputs(); ++g) {
    if (given[g].rows) all[count++] = {&parts_.projections[g], given[g], step.projected[g]};
  }
  forward_all(team, std::span(all).first(count));
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

// Normalizes queries and keys over all heads' features.
void MultiheadAttention::normalize_together(Team& team, const Step& step) const {
  const size_t sequences = step.sequences();
  const auto rows_of = [&](size_t item) {
    const size_t s = step.sequence(item % sequences);
    return item < sequences ? step.num_queries(s) : step.new_keys(s);
  };
  for_each_rows(team, 2 * sequences, rows_of, [&](size_t item, size_t first, size_t rows) {
    const size_t s = step.sequence(item % sequences);
    const bool is_query = item < sequences;
    const Matrix& all = is_query ? step.q : step.k;
    const size_t row = (is_query ? step.q_row(s) : step.k_row(s)) + first;
    const Norm& norm = *(is_query ? parts_.query_norm : parts_.key_norm);
    Team alone = team.alone();
    const Matrix x{all.row(row), rows, norm.size(), all.stride};
    norm.forward(alone, x, x);
  });
}

// Normalizes and rotates queries and keys, head by head.
void MultiheadAttention::transform(Team& team, const Step& step) const {
  const bool rotary = step.position && step.position->rotary();
  if (norms_together_) normalize_together(team, step);
  const bool norms = !norms_together_ && (parts_.query_norm || parts_.key_norm);
  if (!rotary && !options_.normalize && !norms) return;
  const size_t sequences = step.sequences();
  const auto is_key = [&](size_t item) { return item / sequences >= options_.num_heads; };
  const auto rows_of = [&](size_t item) {
    const size_t s = step.sequence(item % sequences);
    return is_key(item) ? step.new_keys(s) : step.num_queries(s);
  };
  const size_t items = (options_.num_heads + options_.num_kv_heads) * sequences;
  for_each_rows(team, items, rows_of, [&](size_t item, size_t first, size_t rows) {
    const size_t s = step.sequence(item % sequences);
    const size_t head = item / sequences - (is_key(item) ? options_.num_heads : 0);
    const Matrix& all = is_key(item) ? step.k : step.q;
    const size_t row = (is_key(item) ? step.k_row(s) : step.q_row(s)) + first;
    const Norm* norm = norms ? (is_key(item) ? parts_.key_norm : parts_.query_norm).get() : nullptr;
    Team alone = team.alone();
    transform_rows(alone, norm, step.position, step.past(s) + first,
                   {all.row(row) + head * head_dim_, rows, head_dim_, all.stride});
  });
}

// x: one head's features at consecutive positions, starting with the given one.
void MultiheadAttention::transform_rows(Team& alone, const Norm* norm, const Positions* position,
                                        size_t first_position, Matrix x) const {
  constexpr float kEps = 1e-12f;  // torch.nn.functional.normalize
  const Kernels& kernels = parts_.output->kernels();
  if (norm) norm->forward(alone, x, x);
  for (size_t i = 0; options_.normalize && i < x.rows; ++i) {
    kernels.l2_normalize(1, head_dim_, kEps, x.row(i), x.row(i));
  }
  if (!position || !position->rotary()) return;
  const size_t pairs = position->pairs;
  kernels.rotary({.rows = x.rows,
                  .cols = head_dim_,
                  .pairs = pairs,
                  .interleaved = position->interleaved,
                  .x = x.data,
                  .ldx = x.stride,
                  .cos = position->cos.data() + first_position * pairs,
                  .sin = position->sin.data() + first_position * pairs,
                  .ld_table = pairs,
                  .y = x.data,
                  .ldy = x.stride});
}

void MultiheadAttention::add_key_biases(Team& team, const Step& step) const {
  const Kernels& kernels = parts_.output->kernels();
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

// Adds the new keys and values to the cache.
void MultiheadAttention::store(Team& team, const Step& step) const {
  const KVShape shape = kv_shape();
  team.for_each(options_.num_kv_heads * step.sequences(), [&](size_t task) {
    const size_t s = step.sequence(task % step.sequences());
    const size_t h = task / step.sequences();
    const size_t row = step.k_row(s);
    if (step.new_keys(s) == 0) return;
    step.inputs.cache->store(s, step.inputs.cache_layer, shape, h,
                             {.count = step.new_keys(s),
                              .k = step.k.row(row) + h * head_dim_,
                              .ldk = step.k.stride,
                              .v = step.v.row(row) + h * value_dim_,
                              .ldv = step.v.stride,
                              .key_bias = shape.key_bias ? step.key_bias.row(h) + row : nullptr});
  });
}

// Distances j - i are counted from the call's first query and the cache's first key.
Span MultiheadAttention::span_of(const Step& step, size_t i) const {
  const size_t s = step.sequence(i);
  const auto past = static_cast<int64_t>(step.past(s));
  Span span{.sequence = s,
            .q_begin = step.q_row(s),
            .num_queries = step.num_queries(s),
            .k_begin = step.k.rows ? step.k_row(s) : 0,
            .num_keys = step.past(s) + step.new_keys(s),
            .origin = past};
  int64_t right = options_.window_right;
  if (step.pattern.causal) right = std::min<int64_t>(right, 0);
  if (options_.window_left < AttentionArgs::kUnbounded) {
    span.min_distance = past - options_.window_left;
  }
  if (right < AttentionArgs::kUnbounded) span.max_distance = past + right;
  return span;
}

// 16-bit integers support scores, bias by distance and weights, and no other options. Earlier
// tokens must not depend on later ones, not even by the steps of q, k and v. So they are used only
// in self-attention over all keys, without a cache.
bool MultiheadAttention::in_s16(const Step& step) const {
  const bool windowed = options_.window_left < AttentionArgs::kUnbounded ||
                        options_.window_right < AttentionArgs::kUnbounded;
  const bool embeddings = step.position && step.position->embeddings;
  const bool self = num_inputs() == 1 || step.inputs.key.data == step.inputs.query.data;
  return self && int8_ && options_.score == Score::kDot && options_.softcap <= 0.0f &&
         !options_.key_norm_bias && !windowed && !embeddings && !step.inputs.cache &&
         step.pattern.plain();
}

void MultiheadAttention::attend_all(Team& team, const Step& step) const {
  const AttentionPattern& p = step.pattern;
  const auto span = [&](size_t i) { return span_of(step, i); };
  const auto dim = static_cast<ptrdiff_t>(head_dim_);
  const auto value_dim = static_cast<ptrdiff_t>(value_dim_);
  const auto stride = [](const Matrix& x) { return static_cast<ptrdiff_t>(x.stride); };
  AttentionCall call{.num_heads = options_.num_heads,
                     .num_kv_heads = options_.num_kv_heads,
                     .head_dim = head_dim_,
                     .value_dim = value_dim_,
                     .num_spans = step.sequences(),
                     .span = span,
                     .score = options_.score,
                     .softmax_scale = options_.softmax_scale,
                     .head_scales = parts_.head_scales.data(),
                     .softcap = options_.softcap,
                     .masked_value = options_.masked_value,
                     .q = {step.q.data, 0, dim, stride(step.q)},
                     .k = {step.k.data, 0, dim, stride(step.k)},
                     .v = {step.v.data, 0, value_dim, stride(step.v)},
                     .out = {step.context.data, 0, value_dim, stride(step.context)},
                     .additive_weight = {parts_.additive_weight.data(), 0, dim, 0},
                     .key_bias = p.key_bias,
                     .pair_bias = p.pair_bias,
                     .key_mask = p.key_mask,
                     .pair_mask = p.pair_mask,
                     .weights = step.inputs.weights,
                     .weights_head = step.inputs.weights_head,
                     .cache = step.inputs.cache,
                     .cache_layer = step.inputs.cache_layer,
                     .cache_shape = kv_shape(),
                     .in_s16 = in_s16(step)};
  if (options_.key_norm_bias && !call.cache) {
    call.key_bias = {step.key_bias.data, 0, stride(step.key_bias), 1};
    call.key_bias_by_kv_head = true;
  }
  if (const Positions* t = step.position) {
    call.relative_bias = {t->relative.data(), 0, static_cast<ptrdiff_t>(t->relative_size), 0};
    call.relative_zero = t->relative_center;
    call.embeddings = t->embeddings.get();
  }
  attend(team, parts_.output->kernels(), call, step.scratch.members);
}

void MultiheadAttention::scale_heads(Team& team, const Step& step) const {
  const size_t sequences = step.sequences();
  const auto rows_of = [&](size_t item) {
    return step.num_queries(step.sequence(item % sequences));
  };
  for_each_rows(team, options_.num_heads * sequences, rows_of,
                [&](size_t item, size_t first, size_t rows) {
                  const size_t s = step.sequence(item % sequences);
                  const size_t head = item / sequences;
                  const float factor = *step.inputs.head_mask.at(s, head, 0);
                  // A selection, not a product, because the output of a head that is switched off
                  // may be NaN.
                  const auto scale = [&](size_t n, float* x) {
                    for (size_t i = 0; i < n; ++i) x[i] = factor == 0.0f ? 0.0f : factor * x[i];
                  };
                  const int32_t* places = step.inputs.weights_head;
                  const auto place = places ? places[head] : static_cast<int32_t>(head);
                  const bool weights = step.inputs.weights && place >= 0;
                  for (size_t i = first; i < first + rows; ++i) {
                    scale(value_dim_, step.context.row(step.q_row(s) + i) + head * value_dim_);
                    if (!weights) continue;
                    scale(step.past(s) + step.new_keys(s),
                          step.inputs.weights.at(s, static_cast<size_t>(place), i));
                  }
                });
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/multihead_attention.h"

#include <algorithm>

#include "base/check.h"
#include "layers/parts/row_shares.h"

namespace simdformer {
namespace {

// Columns [begin, begin + count) of a matrix.
Matrix columns(const Matrix& x, size_t begin, size_t count) {
  return {x.data + begin, x.rows, count, x.stride};
}

}  // namespace

// One call while it runs.
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
  check_parts();
  int8_ = std::all_of(parts_.projections.begin(), parts_.projections.end(), is_int8);
}

// Finds head_dim: queries have num_heads * head_dim features, keys num_kv_heads * head_dim, values
// num_kv_heads * value_dim.
void MultiheadAttention::check_projections() {
  check(num_inputs() >= 1 && num_inputs() <= 3, "MultiheadAttention: projections has ",
        num_inputs(), " groups, expected 1 to 3");
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
  for (const Norm* norm : {parts_.query_norm.get(), parts_.key_norm.get()}) {
    check(!norm || norm->size() == head_dim_, "MultiheadAttention: a norm has size ",
          norm ? norm->size() : 0, ", head_dim is ", head_dim_);
  }
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

// Normalisation and rotation of queries and keys, head by head.
void MultiheadAttention::transform(Team& team, const Step& step) const {
  const bool rotary = step.position && step.position->rotary();
  if (!rotary && !options_.normalize && !parts_.query_norm && !parts_.key_norm) return;
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
    const Norm* norm = (is_key(item) ? parts_.key_norm : parts_.query_norm).get();
    Team alone = team.alone();
    transform_rows(alone, norm, step.position, step.past(s) + first,
                   {all.row(row) + head * head_dim_, rows, head_dim_, all.stride});
  });
}

// x: one head's features of consecutive positions, the first one's number given.
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

// Distances j - i count both from the call's first query and the cache's first key.
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

// 16-bit integers know scores, bias by distance and weights, and nothing else. What later tokens
// would change (a step of q, k or v) must not be seen by earlier ones: no causal layer, no cache.
bool MultiheadAttention::in_s16(const Step& step) const {
  const bool windowed = options_.window_left < AttentionArgs::kUnbounded ||
                        options_.window_right < AttentionArgs::kUnbounded;
  const bool embeddings = step.position && step.position->embeddings;
  return int8_ && options_.score == Score::kDot && options_.softcap <= 0.0f &&
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
                  // By selection: what a head that is left out holds must not matter.
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

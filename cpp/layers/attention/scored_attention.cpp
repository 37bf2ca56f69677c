// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/scored_attention.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace simdformer {
namespace {

constexpr float kNormEps = 1e-12f;  // torch.nn.functional.normalize's

// Extents of 1 broadcast.
Strided<const float> contiguous(const float* data, size_t batches, size_t heads, size_t rows,
                                size_t cols) {
  return {data, batches == 1 ? 0 : static_cast<ptrdiff_t>(heads * rows * cols),
          heads == 1 ? 0 : static_cast<ptrdiff_t>(rows * cols), static_cast<ptrdiff_t>(cols)};
}

}  // namespace

TransformedRows::TransformedRows(const Operand& x, const RowTransform& transform)
    : x_(x), transform_(transform), result_(x.rows) {
  if (transform.empty()) return;
  const size_t cols = transform.cols(x);
  buffer_.reserve(std::max<size_t>(1, x.batches * x.heads * x.num_rows * cols));
  result_ = contiguous(buffer_.data(), x.batches, x.heads, x.num_rows, cols);
}

void TransformedRows::run_block(const Kernels& kernels, size_t batch, size_t head, size_t first,
                                size_t count) {
  const size_t cols = transform_.cols(x_);
  float* out = buffer_.data() + ((batch * x_.heads + head) * x_.num_rows + first) * cols;
  ConstMatrix in{x_.rows.at(batch, head, first), count, x_.cols,
                 static_cast<size_t>(x_.rows.row_stride)};
  if (!transform_.projections.empty()) {
    const size_t which = transform_.projections.size() == 1 ? 0 : head;
    transform_.projections[which].forward_rows(in, {out, count, cols, cols}, {});
    in = {out, count, cols, cols};
  }
  if (!transform_.normalize) return;
  for (size_t i = 0; i < count; ++i) {
    kernels.l2_normalize(1, cols, kNormEps, in.row(i), out + i * cols);
  }
}

void TransformedRows::run(Team& team, const Kernels& kernels) {
  if (transform_.empty()) return;
  const size_t blocks = (x_.num_rows + kRowBlock - 1) / kRowBlock;
  team.for_each(x_.batches * x_.heads * blocks, [&](size_t task) {
    const size_t pair = task / blocks;
    const size_t first = task % blocks * kRowBlock;
    run_block(kernels, pair / x_.heads, pair % x_.heads, first,
              std::min(kRowBlock, x_.num_rows - first));
  });
}

KeyNormBias::KeyNormBias(const Operand& k, size_t batches, size_t num_heads,
                         std::vector<float> factors, const Strided<const float>& user)
    : k_(k), batches_(batches), num_heads_(num_heads), factors_(std::move(factors)), user_(user) {
  buffer_.reserve(std::max<size_t>(1, batches * num_heads * k.num_rows));
  result_ = contiguous(buffer_.data(), batches, num_heads, k.num_rows, 1);
}

void KeyNormBias::run(Team& team, const Kernels& kernels) {
  const size_t group = num_heads_ / k_.heads;
  team.for_each(batches_ * num_heads_, [&](size_t task) {
    const size_t batch = task / num_heads_;
    const size_t head = task % num_heads_;
    float* bias = buffer_.data() + task * k_.num_rows;
    kernels.squared_norms(k_.num_rows, k_.cols, k_.rows.at(batch, head / group, 0),
                          static_cast<size_t>(k_.rows.row_stride), bias);
    const float factor = factors_[factors_.size() == 1 ? 0 : head];
    const float* user = user_.at(batch, head, 0);
    for (size_t j = 0; j < k_.num_rows; ++j) {
      const float added = user ? user[j] : 0.0f;
      bias[j] = std::isinf(added) ? added : factor * bias[j] + added;  // a masked key may be NaN
    }
  });
}

namespace {

// Below this number of floating-point operations, waking other threads costs more than it saves.
constexpr double kSerialFlops = 2e6;

double flops(const AttentionCall& call, std::span<const Span> spans) {
  double pairs = 0;
  for (const Span& span : spans) {
    pairs += static_cast<double>(span.num_queries) * static_cast<double>(span.num_keys);
  }
  const double dims = static_cast<double>(call.head_dim + call.value_dim);
  const double per_score = call.score == Score::kAdditive ? 20.0 : 2.0;
  return per_score * dims * pairs * static_cast<double>(call.num_heads);
}

// -scale / 2, per head or one for all.
std::vector<float> norm_factors(const AttentionCall& call) {
  if (!call.head_scales) return {-0.5f * call.softmax_scale};
  std::vector<float> factors(call.head_scales, call.head_scales + call.num_heads);
  for (float& factor : factors) factor *= -0.5f;
  return factors;
}

}  // namespace

void ScoredAttention::run(int num_threads, const StopCheck& stop_check) const {
  const Kernels& kernels = active_kernels();
  TransformedRows q_rows(q, q_transform);
  TransformedRows k_rows(k, k_transform);
  AttentionCall ready = call;
  ready.q = q_rows.rows();
  ready.k = k_rows.rows();
  std::optional<KeyNormBias> norm_bias;
  if (key_norms) {
    const Operand keys{ready.k, k.batches, k.heads, k.num_rows, call.head_dim};
    const size_t batches = call.key_bias.batch_stride != 0 ? spans.size() : k.batches;
    norm_bias.emplace(keys, batches, q.heads, norm_factors(call), call.key_bias);
    ready.key_bias = norm_bias->bias();
  }
  const auto span_of = [&](size_t i) { return spans[i]; };
  ready.num_spans = spans.size();
  ready.span = span_of;
  size_t max_keys = 0;
  for (const Span& span : spans) max_keys = std::max(max_keys, span.num_keys);
  const int threads = flops(call, spans) < kSerialFlops ? 1 : num_threads;
  std::vector<MemberScratch> members(static_cast<size_t>(threads));
  reserve_attention(kernels,
                    {.max_keys = max_keys, .head_dim = call.head_dim, .value_dim = call.value_dim},
                    members);
  run_team(threads, stop_check, [&](Team& team) {
    q_rows.run(team, kernels);
    k_rows.run(team, kernels);
    if (norm_bias) norm_bias->run(team, kernels);
    attend(team, kernels, ready, members);
  });
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/attention.h"

#include <cmath>

#include "base/check.h"

namespace simdformer {

SelfAttention::SelfAttention(std::shared_ptr<const Linear> qkv,
                             std::shared_ptr<const Linear> output, size_t num_heads,
                             std::shared_ptr<const RelativeBias> relative_bias)
    : qkv_(std::move(qkv)),
      output_(std::move(output)),
      num_heads_(num_heads),
      relative_bias_(std::move(relative_bias)) {
  check(num_heads > 0, "SelfAttention: num_heads must be positive, got ", num_heads);
  const size_t hidden = hidden_size();
  check(hidden % num_heads == 0, "SelfAttention: hidden_size ", hidden,
        " is not divisible by num_heads ", num_heads);
  check(output_->in_features() == hidden,
        "SelfAttention: output must map hidden_size to itself, "
        "got ",
        output_->in_features(), " -> ", hidden);
  check(qkv_->in_features() == hidden && qkv_->out_features() == 3 * hidden,
        "SelfAttention: qkv must map ", hidden, " -> ", 3 * hidden, ", got ", qkv_->in_features(),
        " -> ", qkv_->out_features());
  check(!relative_bias_ || relative_bias_->num_heads() == num_heads,
        "SelfAttention: relative_bias has ", relative_bias_ ? relative_bias_->num_heads() : 0,
        " heads, num_heads is ", num_heads);
}

void SelfAttention::reserve(Scratch scratch, size_t tokens, size_t max_seqlen) const {
  reserve_matrix(scratch.block.qkv, tokens, 3 * hidden_size());
  reserve_matrix(scratch.block.context, tokens, hidden_size());
  const Kernels& kernels = qkv_->kernels();
  const auto size = in_s16() ? kernels.attention_s16_scratch : kernels.attention_scratch;
  for (MemberScratch& member : scratch.members) {
    member.attention.reserve(size(max_seqlen, head_dim(), head_dim()));
  }
}

void SelfAttention::attend(Team& team, const Batch& batch, const Block& block, ConstMatrix qkv,
                           Scratch scratch, Matrix context) const {
  const size_t sequences = block.last_sequence - block.first_sequence;
  const float softmax_scale = 1.0f / std::sqrt(static_cast<float>(head_dim()));
  const Kernels& kernels = qkv_->kernels();
  const auto attention = in_s16() ? kernels.attention_s16 : kernels.attention;
  // Heads outside: contiguous shares of (head, sequence) pairs then cost the same.
  team.for_each(num_heads_ * sequences, [&](size_t task) {
    const size_t head = task / sequences;
    const size_t sequence = block.first_sequence + task % sequences;
    const size_t row = batch.begin(sequence) - block.first_token;
    const size_t length = batch.length(sequence);
    const float* q = qkv.row(row) + head * head_dim();
    attention({
        .num_queries = length,
        .num_keys = length,
        .head_dim = head_dim(),
        .value_dim = head_dim(),
        .softmax_scale = softmax_scale,
        .q = q,
        .ldq = qkv.stride,
        .k = q + hidden_size(),
        .ldk = qkv.stride,
        .v = q + 2 * hidden_size(),
        .ldv = qkv.stride,
        .relative_bias = relative_bias_ ? relative_bias_->of_head(head, length) : nullptr,
        .out = context.row(row) + head * head_dim(),
        .ldo = context.stride,
        .scratch = scratch.members[team.rank()].attention.data(),
    });
  });
}

void SelfAttention::forward(Team& team, const Batch& batch, const Block& block, ConstMatrix x,
                            const LayerNorm& norm, Scratch scratch, Matrix y) const {
  const Matrix qkv = reserve_matrix(scratch.block.qkv, block.tokens, 3 * hidden_size());
  const Matrix context = reserve_matrix(scratch.block.context, block.tokens, hidden_size());
  qkv_->forward(team, x, qkv);
  attend(team, batch, block, qkv, scratch, context);
  output_->forward(team, context, y, {.residual = x, .norm = &norm});
}

}  // namespace simdformer

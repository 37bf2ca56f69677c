// SPDX-License-Identifier: Apache-2.0
// Attention over many sequences and heads given as strided views: what functional calls and layers
// with caches share. The formula is at AttentionArgs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/parallel.h"
#include "isa/dispatch.h"

namespace simdformer {

// Rows of head h of a sequence: data + offset(sequence) + h * head_stride + i * row_stride, the
// last dimension contiguous. Strides are in elements; 0 broadcasts.
template <typename T>
struct Strided {
  T* data = nullptr;
  ptrdiff_t batch_stride = 0;
  ptrdiff_t head_stride = 0;
  ptrdiff_t row_stride = 0;

  explicit operator bool() const { return data != nullptr; }
  // Element (sequence, head, row, 0); null stays null.
  T* at(size_t sequence, size_t head, size_t row) const {
    return data ? data + static_cast<ptrdiff_t>(sequence) * batch_stride +
                      static_cast<ptrdiff_t>(head) * head_stride +
                      static_cast<ptrdiff_t>(row) * row_stride
                : nullptr;
  }
};

// One sequence's rows: queries [q_begin, q_begin + num_queries), keys likewise.
struct Span {
  size_t q_begin = 0;
  size_t num_queries = 0;
  size_t k_begin = 0;
  size_t num_keys = 0;
  int64_t min_distance = -AttentionArgs::kUnbounded;  // of j - i, both from the span's own start
  int64_t max_distance = AttentionArgs::kUnbounded;
  int64_t origin = 0;  // the j - i that relative_bias counts as distance 0
};

struct AttentionCall {
  size_t num_heads = 0;
  size_t num_kv_heads = 0;  // query head h reads key head h / (num_heads / num_kv_heads)
  size_t head_dim = 0;
  size_t value_dim = 0;
  std::vector<Span> spans;
  Score score = Score::kDot;
  float softmax_scale = 1.0f;
  const float* head_scales = nullptr;  // (num_heads): in place of softmax_scale
  float softcap = 0.0f;
  float masked_value = 0.0f;
  Strided<const float> q;
  Strided<const float> k;
  Strided<const float> v;
  Strided<float> out;
  Strided<const float> additive_weight;  // (num_heads, head_dim)
  bool exact_tanh = false;
  Strided<const float> key_bias;       // (.., heads, keys): row_stride 1, or 0 if k_begin is 0
  Strided<const float> relative_bias;  // (heads, distances); distance 0 stands at relative_zero
  size_t relative_zero = 0;
  Strided<const float> pair_bias;    // (.., heads, num_queries, num_keys)
  Strided<const uint8_t> key_mask;   // as key_bias
  Strided<const uint8_t> pair_mask;  // (.., heads, num_queries, num_keys)
  Strided<float> weights;            // (.., heads, rows of q, num_keys)
  WeightsStage weights_stage = WeightsStage::kSoftmax;
};

// One scratch buffer a member.
using AttentionScratch = std::vector<Buffer<float>>;
void reserve_scratch(const Kernels& kernels, const AttentionCall& call, AttentionScratch& scratch);

// Every head of every span, shared out over the team; with few of them, their queries as well.
void run_attention(Team& team, const Kernels& kernels, const AttentionCall& call,
                   AttentionScratch& scratch);

}  // namespace simdformer

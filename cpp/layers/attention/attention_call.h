// SPDX-License-Identifier: Apache-2.0
// The only caller of the attention kernels: attention over several sequences and heads, given as
// strided views, with or without a cache. The formula is at AttentionArgs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/function_ref.h"
#include "base/parallel.h"
#include "isa/dispatch.h"
#include "layers/attention/kv_cache.h"
#include "layers/attention/relative_embeddings.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// Rows of head h of a sequence: data + offset(sequence) + h * head_stride + i * row_stride. The
// last dimension is contiguous. Strides are in elements; 0 broadcasts.
template <typename T>
struct Strided {
  T* data = nullptr;
  ptrdiff_t batch_stride = 0;
  ptrdiff_t head_stride = 0;
  ptrdiff_t row_stride = 0;

  explicit operator bool() const { return data != nullptr; }
  // Element (sequence, head, row, 0). A null pointer stays null.
  T* at(size_t sequence, size_t head, size_t row) const {
    return data ? data + static_cast<ptrdiff_t>(sequence) * batch_stride +
                      static_cast<ptrdiff_t>(head) * head_stride +
                      static_cast<ptrdiff_t>(row) * row_stride
                : nullptr;
  }
};

// The rows of one sequence: queries [q_begin, q_begin + num_queries), and keys likewise.
struct Span {
  size_t sequence = 0;  // its index in masks, biases, weights and the cache
  size_t q_begin = 0;
  size_t num_queries = 0;
  size_t k_begin = 0;
  size_t num_keys = 0;                                // including those of the cache
  size_t weights_begin = 0;                           // the first query's row in weights
  int64_t min_distance = -AttentionArgs::kUnbounded;  // of j - i, both from the span's own start
  int64_t max_distance = AttentionArgs::kUnbounded;
  int64_t origin = 0;  // the j - i that relative_bias counts as distance 0
};

struct NoSpans {
  Span operator()(size_t) const { return {}; }
};
inline constexpr NoSpans kNoSpans;

struct AttentionCall {
  size_t num_heads = 0;
  size_t num_kv_heads = 0;  // query head h reads key head h / (num_heads / num_kv_heads)
  size_t head_dim = 0;
  size_t value_dim = 0;
  size_t num_spans = 0;
  FunctionRef<Span(size_t)> span = kNoSpans;  // returns each span below num_spans
  Score score = Score::kDot;
  float softmax_scale = 1.0f;
  const float* head_scales = nullptr;  // (num_heads): instead of softmax_scale
  float softcap = 0.0f;
  float masked_value = 0.0f;
  Strided<const float> q = {};
  Strided<const float> k = {};
  Strided<const float> v = {};
  Strided<float> out = {};
  Strided<const float> additive_weight = {};  // (num_heads, head_dim)
  bool exact_tanh = false;
  Strided<const float> key_bias = {};       // (.., heads, keys): row_stride 1, or 0 if k_begin is 0
  bool key_bias_by_kv_head = false;         // its heads are key heads
  Strided<const float> relative_bias = {};  // (heads, distances); distance 0 is at relative_zero
  size_t relative_zero = 0;
  const RelativeEmbeddings* embeddings = nullptr;
  Strided<const float> pair_bias = {};    // (.., heads, num_queries, num_keys)
  Strided<const uint8_t> key_mask = {};   // as key_bias
  Strided<const uint8_t> pair_mask = {};  // (.., heads, num_queries, num_keys)
  Strided<float> weights = {};            // (.., heads, rows of q, num_keys)
  const int32_t* weights_head = nullptr;  // (num_heads): index of a head in weights, -1: none
  WeightsStage weights_stage = WeightsStage::kSoftmax;
  const KVCache* cache = nullptr;  // provides keys and values instead of k and v
  size_t cache_layer = 0;
  KVShape cache_shape = {};
  // Both products in 16-bit integers, if no options other than relative_bias and weights are used.
  bool in_s16 = false;
};

// The sizes that determine the scratch.
struct AttentionSizes {
  size_t max_keys = 0;  // per span
  size_t head_dim = 0;
  size_t value_dim = 0;
  bool in_s16 = false;  // in 16-bit integers or float32, depending on the call
  const RelativeEmbeddings* embeddings = nullptr;
};
// The scratch of each member.
void reserve_attention(const Kernels& kernels, const AttentionSizes& sizes,
                       std::span<MemberScratch> members);

// Computes every head of every span, shared by the team. The queries of a head are split if the
// heads cannot be distributed evenly. The bits of a row do not depend on that.
void attend(Team& team, const Kernels& kernels, const AttentionCall& call,
            std::span<MemberScratch> members);

}  // namespace simdformer

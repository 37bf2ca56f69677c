// SPDX-License-Identifier: Apache-2.0
// Multi-head attention with every option: self or cross, grouped queries, biases and masks, all
// dot-like scores, additive scores, a cache. layers/attention/attention.h is the lean form for
// BERT.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "layers/attention/attention_call.h"
#include "layers/attention/kv_cache.h"
#include "layers/attention/relative_attention.h"
#include "layers/parts/linear.h"
#include "layers/parts/norm.h"
#include "layers/stack/batch.h"
#include "layers/stack/workspace.h"

namespace simdformer {

// Which keys a query sees and what is added to its scores; the same for every layer of a stack.
// Sequences count from the whole batch's first. Queries and keys of sequence s are rows
// [cu_q[s], cu_q[s + 1]) and [cu_k[s], cu_k[s + 1]) of packed matrices.
struct AttentionPattern {
  std::span<const int32_t> cu_q;
  std::span<const int32_t> cu_k;
  bool causal = false;  // query i sees key j <= i + (keys in the cache before this call)
  Strided<const uint8_t> key_mask = {};   // (sequence, 1, num_keys) in rows, 0 = masked
  Strided<const float> key_bias = {};     // (sequence, 1, num_keys)
  Strided<const uint8_t> pair_mask = {};  // (sequence, head, num_queries, num_keys), 0 = masked
  Strided<const float> pair_bias = {};    // (sequence, head, num_queries, num_keys)
};

// What one layer knows of positions. Absent: null.
struct PositionTables {
  const float* relative = nullptr;  // (num_heads, relative_size): bias of distance j - i
  size_t relative_size = 0;
  size_t relative_center = 0;  // column of distance 0
  const float* cos = nullptr;  // (positions, rotary_dim / 2), for queries and keys
  const float* sin = nullptr;
  size_t rotary_dim = 0;
  bool rotary_interleaved = false;
  const RelativeEmbeddings* embeddings = nullptr;
};

struct AttentionOptions {
  size_t num_heads = 0;
  size_t num_kv_heads = 0;
  Score score = Score::kDot;
  float softmax_scale = 1.0f;
  float softcap = 0.0f;
  float masked_value = 0.0f;
  int64_t window_left = AttentionArgs::kUnbounded;  // query i sees keys j >= i - window_left
  int64_t window_right = AttentionArgs::kUnbounded;
  bool normalize = false;      // q and k to unit length: the cosine score
  bool key_norm_bias = false;  // -softmax_scale / 2 |k|^2 a key: with kDot, the Euclidean score
};

class MultiheadAttention {
 public:
  // The last rows of each sequence's keys and values, learned and then zero, beside the projected.
  struct ExtraKeys {
    Buffer<float> key;    // (num_kv_heads * head_dim) or empty
    Buffer<float> value;  // (num_kv_heads * value_dim) or empty
    bool zero = false;

    size_t count() const { return (key.size() ? 1u : 0u) + (zero ? 1u : 0u); }
  };
  struct Parts {
    std::shared_ptr<const Linear> query;
    std::shared_ptr<const Linear> key;
    std::shared_ptr<const Linear> value;
    std::shared_ptr<const Linear> output;
    Buffer<float> additive_weight;           // (num_heads, head_dim), for kAdditive
    Buffer<float> head_scales;               // (num_heads), in place of softmax_scale, or empty
    std::shared_ptr<const Norm> query_norm;  // of each head's features, or null
    std::shared_ptr<const Norm> key_norm;
    ExtraKeys extra;
  };
  // What one call reads and where it leaves its traces.
  struct Inputs {
    ConstMatrix query;
    ConstMatrix key;  // rows of extra keys hold anything
    ConstMatrix value;
    const PositionTables* position = nullptr;
    KVCache* cache = nullptr;  // gives the keys, after the rows of key have been added to it
    size_t cache_layer = 0;
    Strided<const float> head_mask = {};  // (sequence, head): factor of its output and weights
    bool context_only = false;            // y takes the heads' outputs, side by side, unprojected
    Strided<float> weights = {};          // (sequence, head, num_queries, num_keys)
  };

  MultiheadAttention(Parts parts, const AttentionOptions& options);

  size_t embed_dim() const { return parts_.output->out_features(); }
  size_t query_dim() const { return parts_.query->in_features(); }
  size_t key_dim() const { return parts_.key->in_features(); }
  size_t value_input_dim() const { return parts_.value->in_features(); }
  size_t num_heads() const { return options_.num_heads; }
  size_t head_dim() const { return head_dim_; }
  size_t num_extra_keys() const { return parts_.extra.count(); }
  size_t context_dim() const { return parts_.output->in_features(); }
  KVShape kv_shape() const;

  // Scratch for blocks of up to q_tokens queries and k_tokens keys, max_keys of them a sequence.
  void reserve(Scratch scratch, size_t q_tokens, size_t k_tokens, size_t max_keys,
               const PositionTables& position) const;

  // y = epilogue(attention(..)); queries are rows of the block, keys those of its sequences.
  void forward(Team& team, const AttentionPattern& pattern, const Block& block,
               const Inputs& inputs, Scratch scratch, const Epilogue& epilogue, Matrix y) const;

 private:
  struct Step;  // one call's matrices

  void check_scales_and_norms() const;
  void project(Team& team, const Inputs& inputs, const Step& step) const;
  void place_extra_keys(Team& team, const Step& step) const;
  void transform(Team& team, const Step& step) const;
  void transform_head(Team& alone, const Norm* norm, const PositionTables* tables, size_t position,
                      Matrix x) const;
  void add_key_biases(Team& team, const Step& step) const;
  void store(Team& team, const Step& step) const;
  float scale_of(size_t head) const;
  void attend(Team& team, const Step& step) const;
  AttentionArgs head_args(const Step& step, size_t sequence, size_t head) const;
  void read_cache(const Step& step, size_t sequence, size_t kv_head, AttentionArgs& args) const;
  void set_window(const Step& step, size_t sequence, AttentionArgs& args) const;
  void scale_heads(Team& team, const Step& step) const;

  Parts parts_;
  AttentionOptions options_;
  size_t head_dim_;
  size_t value_dim_;
};

}  // namespace simdformer

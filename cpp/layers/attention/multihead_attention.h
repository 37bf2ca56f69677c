// SPDX-License-Identifier: Apache-2.0
// Multi-head attention (Vaswani et al. 2017, section 3.2.2) with all options: self or cross,
// grouped queries, biases and masks, all dot-like scores, additive scores, positions, a cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "layers/attention/attention_call.h"
#include "layers/attention/kv_cache.h"
#include "layers/attention/positions.h"
#include "layers/parts/batch.h"
#include "layers/parts/linear.h"
#include "layers/parts/norm.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// The keys that a query sees, and the biases of its scores; the same for all layers of a stack.
// Sequences are numbered within the whole batch. Queries and keys of sequence s are rows [cu_q[s],
// cu_q[s + 1]) and [cu_k[s], cu_k[s + 1]) of packed matrices.
struct AttentionPattern {
  std::span<const int32_t> cu_q;
  std::span<const int32_t> cu_k;
  bool causal = false;  // query i sees key j <= i + (keys in the cache before this call)
  Strided<const uint8_t> key_mask = {};   // (sequence, 1, num_keys) in rows, 0 = masked
  Strided<const float> key_bias = {};     // (sequence, 1, num_keys)
  Strided<const uint8_t> pair_mask = {};  // (sequence, head, num_queries, num_keys), 0 = masked
  Strided<const float> pair_bias = {};    // (sequence, head, num_queries, num_keys)

  // Whether all keys are seen and there are no biases.
  bool plain() const { return !causal && !key_mask && !key_bias && !pair_mask && !pair_bias; }
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
  bool normalize = false;      // q and k scaled to unit length: the cosine score
  bool key_norm_bias = false;  // key bias -softmax_scale / 2 |k|^2: Euclidean score
};

class MultiheadAttention {
 public:
  // Appended rows of each sequence's keys and values: a learned one and then a zero one.
  struct ExtraKeys {
    Buffer<float> key;    // (num_kv_heads * head_dim) or empty
    Buffer<float> value;  // (num_kv_heads * value_dim) or empty
    bool zero = false;

    size_t count() const { return (key.size() ? 1u : 0u) + (zero ? 1u : 0u); }
  };
  struct Parts {
    // Projections of the same rows are adjacent: {QKV} if keys and values have the queries' rows;
    // {Q, KV}; or {Q, K, V}.
    std::vector<LinearGroup> projections;
    std::shared_ptr<const Linear> output;
    Buffer<float> additive_weight;           // (num_heads, head_dim), for kAdditive
    Buffer<float> head_scales;               // (num_heads), instead of softmax_scale, or empty
    std::shared_ptr<const Norm> query_norm;  // for each head's features or all, or null
    std::shared_ptr<const Norm> key_norm;
    ExtraKeys extra;
    std::shared_ptr<const Positions> position;  // null: none
  };
  // The inputs and additional outputs of one call.
  struct Inputs {
    ConstMatrix query;
    const Positions* position = nullptr;  // instead of the parts' own
    ConstMatrix key = {};    // read if projected separately; rows of extra keys are not initialized
    ConstMatrix value = {};  // likewise
    KVCache* cache = nullptr;  // provides the keys, after the rows of key were added
    size_t cache_layer = 0;
    Strided<const float> head_mask = {};    // (sequence, head): factor of its output and weights
    bool context_only = false;              // y receives the heads' outputs without projection
    Strided<float> weights = {};            // (sequence, head, num_queries, num_keys)
    const int32_t* weights_head = nullptr;  // (num_heads): index of a head in weights, -1: none
    // Receives the heads' outputs as packed rows of the whole batch, or has no data.
    Matrix head_outputs = {};
  };

  MultiheadAttention(Parts parts, const AttentionOptions& options);

  const Parts& parts() const { return parts_; }
  const AttentionOptions& options() const { return options_; }
  size_t embed_dim() const { return parts_.output->out_features(); }
  size_t query_dim() const { return in_features(parts_.projections[0]); }
  size_t key_dim() const { return in_features(key_group()); }
  size_t value_input_dim() const { return in_features(parts_.projections.back()); }
  // The number of input matrices: 1 if keys and values have the queries' rows.
  size_t num_inputs() const { return parts_.projections.size(); }
  size_t num_heads() const { return options_.num_heads; }
  size_t head_dim() const { return head_dim_; }
  size_t num_extra_keys() const { return parts_.extra.count(); }
  size_t context_dim() const { return parts_.output->in_features(); }
  const Positions* position() const { return parts_.position.get(); }
  KVShape kv_shape() const;
  // Throws std::invalid_argument if they do not match its heads.
  void check_position(const Positions& position) const;

  // Reserves scratch for blocks of up to q_tokens queries and k_tokens keys, at most max_keys of
  // them per sequence.
  void reserve(Scratch scratch, size_t q_tokens, size_t k_tokens, size_t max_keys,
               const Positions* position = nullptr) const;

  // y = epilogue(attention(..)). Queries are rows of the block, keys are those of its sequences.
  void forward(Team& team, const AttentionPattern& pattern, const Block& block,
               const Inputs& inputs, Scratch scratch, const Epilogue& epilogue, Matrix y) const;

 private:
  struct Step;  // the matrices of one call

  const LinearGroup& key_group() const { return parts_.projections[num_inputs() == 1 ? 0 : 1]; }
  void check_projections();
  void check_parts() const;
  Step make_step(const AttentionPattern& pattern, const Block& block, const Inputs& inputs,
                 Scratch scratch, Matrix y) const;
  void project(Team& team, const Step& step) const;
  void place_extra_keys(Team& team, const Step& step) const;
  void normalize_together(Team& team, const Step& step) const;
  void transform(Team& team, const Step& step) const;
  void transform_rows(Team& alone, const Norm* norm, const Positions* position,
                      size_t first_position, Matrix x) const;
  void add_key_biases(Team& team, const Step& step) const;
  void store(Team& team, const Step& step) const;
  float scale_of(size_t head) const;
  Span span_of(const Step& step, size_t i) const;
  bool in_s16(const Step& step) const;
  void attend_all(Team& team, const Step& step) const;
  void scale_heads(Team& team, const Step& step) const;

  Parts parts_;
  AttentionOptions options_;
  size_t head_dim_ = 0;
  size_t value_dim_ = 0;
  bool int8_ = false;            // whether all projections are in int8
  bool norms_together_ = false;  // query_norm and key_norm are for all heads' features together
};

}  // namespace simdformer

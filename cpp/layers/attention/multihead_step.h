// SPDX-License-Identifier: Apache-2.0
// One call of MultiheadAttention while it runs; its own files alone include this.
#pragma once

#include "layers/attention/multihead_attention.h"

namespace simdformer {

struct MultiheadAttention::Step {
  const AttentionPattern& pattern;
  const Block& block;
  const Inputs& inputs;
  Matrix q;
  Matrix k;  // no rows if the cache holds all keys
  Matrix v;
  Matrix key_bias;  // (num_kv_heads, rows of k)
  Matrix context;
  Scratch scratch;

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

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Keys and values of the tokens that a decoder has processed, in the layout of the attention
// kernel: a step packs only its own token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "isa/dispatch.h"

namespace simdformer {

// What an attention layer stores for each token.
struct KVShape {
  const Kernels* kernels = nullptr;
  size_t num_kv_heads = 0;
  size_t head_dim = 0;
  size_t value_dim = 0;
  bool packed = true;     // else rows (num_kv_heads * head_dim) and (num_kv_heads * value_dim)
  bool key_bias = false;  // one float per key and head

  // The size in floats of one head's keys, or values, with space for capacity tokens.
  size_t key_floats(size_t capacity) const;
  size_t value_floats(size_t capacity) const;
};

class KVCache {
 public:
  struct Layer {
    Buffer<float> keys;
    Buffer<float> values;
    Buffer<float> key_bias;  // (num_kv_heads, capacity)
  };
  struct Sequence {
    size_t length = 0;
    size_t capacity = 0;
    std::vector<Layer> layers;
  };

  explicit KVCache(size_t batch_size);

  size_t size() const { return sequences_.size(); }
  size_t num_layers() const { return num_layers_; }
  size_t length(size_t sequence) const { return sequences_[sequence]->length; }

  // Provides space for counts[s] more tokens of each sequence. The first call defines the layers.
  void reserve(std::span<const size_t> counts, std::span<const KVShape> layers);
  // One head's new keys and values, stored after those that the sequence already has.
  struct Rows {
    size_t count = 0;
    const float* k = nullptr;  // (count, head_dim)
    size_t ldk = 0;
    const float* v = nullptr;  // (count, value_dim)
    size_t ldv = 0;
    const float* key_bias = nullptr;  // (count), if the shape has it
  };
  void store(size_t sequence, size_t layer, const KVShape& shape, size_t kv_head, const Rows& rows);
  // Sets the pointers in args to a head's keys, values and biases.
  void read(size_t sequence, size_t layer, const KVShape& shape, size_t kv_head,
            AttentionArgs& args) const;
  // Call this when counts[s] tokens have been written.
  void advance(std::span<const size_t> counts);
  // Replaces sequence i by a copy of sequence indices[i]. The data is shared until one of its
  // owners grows.
  void select(std::span<const int32_t> indices);

 private:
  std::vector<std::shared_ptr<Sequence>> sequences_;
  size_t num_layers_ = 0;
};

}  // namespace simdformer

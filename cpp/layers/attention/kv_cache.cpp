// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/kv_cache.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {
namespace {

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// A multiple of every level's gemm_nr: 8, 16, 48.
constexpr size_t kCapacityUnit = 48;

Buffer<float> zeros(size_t size) {
  Buffer<float> buffer(size);
  std::fill_n(buffer.data(), size, 0.0f);
  return buffer;
}

// Copies the first `length` tokens of one head's packed values. A panel of gemm_nr columns contains
// whole tokens one after another, so its beginning does not move.
void copy_values(const KVShape& shape, size_t length, const float* from, size_t old_capacity,
                 float* to, size_t capacity) {
  const size_t nr = shape.kernels->gemm_nr;
  const size_t padded = round_up(shape.value_dim, shape.kernels->lanes);
  for (size_t column = 0; column < padded; column += nr) {
    const size_t width = std::min(nr, padded - column);
    std::copy_n(from + column * old_capacity, length * width, to + column * capacity);
  }
}

// Copies keys and values to buffers with more space. Packed keys are in panels of gemm_nr tokens,
// and capacities are whole panels, so existing tokens keep their place within their head.
KVCache::Layer grown(const KVShape& shape, const KVCache::Layer& old, size_t length,
                     size_t old_capacity, size_t capacity) {
  const size_t heads = shape.num_kv_heads;
  KVCache::Layer layer{.keys = zeros(heads * shape.key_floats(capacity)),
                       .values = zeros(heads * shape.value_floats(capacity)),
                       .key_bias = zeros(shape.key_bias ? heads * capacity : 0)};
  if (length == 0) return layer;
  if (!shape.packed) {
    std::copy_n(old.keys.data(), heads * shape.key_floats(length), layer.keys.data());
    std::copy_n(old.values.data(), heads * shape.value_floats(length), layer.values.data());
    return layer;
  }
  for (size_t h = 0; h < heads; ++h) {
    std::copy_n(old.keys.data() + h * shape.key_floats(old_capacity),
                shape.key_floats(old_capacity), layer.keys.data() + h * shape.key_floats(capacity));
    copy_values(shape, length, old.values.data() + h * shape.value_floats(old_capacity),
                old_capacity, layer.values.data() + h * shape.value_floats(capacity), capacity);
    if (shape.key_bias) {
      std::copy_n(old.key_bias.data() + h * old_capacity, length,
                  layer.key_bias.data() + h * capacity);
    }
  }
  return layer;
}

}  // namespace

size_t KVShape::key_floats(size_t capacity) const { return capacity * head_dim; }

size_t KVShape::value_floats(size_t capacity) const {
  return capacity * (packed ? round_up(value_dim, kernels->lanes) : value_dim);
}

KVCache::KVCache(size_t batch_size) : sequences_(batch_size) {
  for (auto& sequence : sequences_) sequence = std::make_shared<Sequence>();
}

void KVCache::reserve(std::span<const size_t> counts, std::span<const KVShape> layers) {
  check(num_layers_ == 0 || num_layers_ == layers.size(), "cache holds keys of ", num_layers_,
        " layers, the decoder has ", layers.size());
  num_layers_ = layers.size();
  for (const KVShape& shape : layers) {
    check(kCapacityUnit % shape.kernels->gemm_nr == 0, "cache of ", kCapacityUnit,
          " tokens is no whole number of panels of ", shape.kernels->gemm_nr);
  }
  for (size_t s = 0; s < size(); ++s) {
    const Sequence& old = *sequences_[s];
    const size_t needed = old.length + counts[s];
    if (counts[s] == 0 || (needed <= old.capacity && sequences_[s].use_count() == 1)) continue;
    // Grows by half, so that n steps copy O(n) tokens.
    const size_t capacity =
        needed <= old.capacity
            ? old.capacity
            : round_up(std::max(needed, old.capacity + old.capacity / 2), kCapacityUnit);
    auto sequence = std::make_shared<Sequence>();
    sequence->length = old.length;
    sequence->capacity = capacity;
    const Layer none;
    for (size_t l = 0; l < layers.size(); ++l) {
      sequence->layers.push_back(grown(layers[l], old.layers.empty() ? none : old.layers[l],
                                       old.length, old.capacity, capacity));
    }
    sequences_[s] = std::move(sequence);
  }
}

void KVCache::store(size_t s, size_t l, const KVShape& shape, size_t kv_head, const Rows& rows) {
  Sequence& sequence = *sequences_[s];
  Layer& layer = sequence.layers[l];
  const size_t begin = sequence.length;
  if (shape.packed) {
    shape.kernels->pack_keys(sequence.capacity, shape.head_dim, begin, begin + rows.count, rows.k,
                             rows.ldk,
                             layer.keys.data() + kv_head * shape.key_floats(sequence.capacity));
    shape.kernels->pack_values(
        sequence.capacity, shape.value_dim, begin, begin + rows.count, rows.v, rows.ldv,
        layer.values.data() + kv_head * shape.value_floats(sequence.capacity));
    if (shape.key_bias) {
      std::copy_n(rows.key_bias, rows.count,
                  layer.key_bias.data() + kv_head * sequence.capacity + begin);
    }
    return;
  }
  for (size_t j = 0; j < rows.count; ++j) {
    const size_t token = (begin + j) * shape.num_kv_heads + kv_head;
    std::copy_n(rows.k + j * rows.ldk, shape.head_dim, layer.keys.data() + token * shape.head_dim);
    std::copy_n(rows.v + j * rows.ldv, shape.value_dim,
                layer.values.data() + token * shape.value_dim);
  }
}

void KVCache::read(size_t s, size_t l, const KVShape& shape, size_t kv_head,
                   AttentionArgs& args) const {
  const Sequence& sequence = *sequences_[s];
  const Layer& layer = sequence.layers[l];
  if (!shape.packed) {
    args.k = layer.keys.data() + kv_head * shape.head_dim;
    args.ldk = shape.num_kv_heads * shape.head_dim;
    args.v = layer.values.data() + kv_head * shape.value_dim;
    args.ldv = shape.num_kv_heads * shape.value_dim;
    return;
  }
  args.packed_k = layer.keys.data() + kv_head * shape.key_floats(sequence.capacity);
  args.packed_v = layer.values.data() + kv_head * shape.value_floats(sequence.capacity);
  args.packed_capacity = sequence.capacity;
  if (shape.key_bias) args.key_bias = layer.key_bias.data() + kv_head * sequence.capacity;
}

void KVCache::advance(std::span<const size_t> counts) {
  for (size_t s = 0; s < size(); ++s) {
    if (counts[s] > 0) sequences_[s]->length += counts[s];
  }
}

void KVCache::select(std::span<const int32_t> indices) {
  std::vector<std::shared_ptr<Sequence>> chosen;
  for (const int32_t index : indices) {
    check(index >= 0 && static_cast<size_t>(index) < size(), "cache has ", size(),
          " sequences, index is ", index);
    chosen.push_back(sequences_[static_cast<size_t>(index)]);
  }
  sequences_ = std::move(chosen);
}

}  // namespace simdformer

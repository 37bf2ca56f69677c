// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "base/buffer.h"
#include "layers/attention/relative_embeddings.h"

namespace simdformer {

// The positions of an attention; empty parts are not used. A value may be shared by several layers,
// and is valid for sequences of at most max_length tokens.
struct Positions {
  // Bias of query i and key j by distance: relative[head, relative_center + j - i] (T5, MPNet;
  // ALiBi).
  Buffer<float> relative;  // (relative_heads, relative_size)
  size_t relative_heads = 0;
  size_t relative_size = 0;
  size_t relative_center = 0;
  // Rotation of queries and keys (Su et al. 2021): cos and sin of each position and pair.
  Buffer<float> cos;  // (max_length, pairs)
  Buffer<float> sin;
  size_t pairs = 0;
  bool interleaved = false;
  // Products with embeddings of distances (Shaw et al. 2018, Transformer-XL, DeBERTa).
  std::shared_ptr<const RelativeEmbeddings> embeddings;
  size_t max_length = 0;  // 0: any

  bool rotary() const { return pairs > 0; }
};

// Sets relative_size and max_length by the other members. Throws std::invalid_argument unless the
// tables have the same length and distance 0.
void set_lengths(Positions& positions);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/buffer.h"

namespace simdformer {

// What is added to the score of each head's query i and key j, by their distance j - i (T5, MPNet).
// One table serves any number of layers and every length: a shorter sequence reads its middle.
class RelativeBias {
 public:
  // bias: (num_heads, 2 max_length - 1), distance 0 in the middle; copied.
  explicit RelativeBias(ConstMatrix bias);

  size_t num_heads() const { return num_heads_; }
  // The longest sequence that it serves.
  size_t max_length() const { return (size_ + 1) / 2; }

  // AttentionArgs::relative_bias of a head in a sequence of that length.
  const float* of_head(size_t head, size_t length) const {
    return bias_.data() + head * size_ + (max_length() - length);
  }

 private:
  size_t num_heads_;
  size_t size_;
  Buffer<float> bias_;
};

}  // namespace simdformer

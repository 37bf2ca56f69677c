// SPDX-License-Identifier: Apache-2.0
// Concatenated sequences without padding: sequence i is tokens [cu_seqlens[i], cu_seqlens[i+1]).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/buffer.h"

namespace simdformer {

struct Batch {
  std::span<const int32_t> input_ids;       // (total_tokens)
  std::span<const int32_t> token_type_ids;  // (total_tokens) or empty: all 0
  std::span<const int32_t> cu_seqlens;      // (batch_size + 1)

  size_t size() const { return cu_seqlens.size() - 1; }
  size_t begin(size_t sequence) const { return static_cast<size_t>(cu_seqlens[sequence]); }
  size_t length(size_t sequence) const { return begin(sequence + 1) - begin(sequence); }
};

// Consecutive sequences that go through all layers together.
struct Block {
  size_t first_sequence = 0;
  size_t last_sequence = 0;  // one past the last
  size_t first_token = 0;
  size_t tokens = 0;
};

}  // namespace simdformer

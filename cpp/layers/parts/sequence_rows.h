// SPDX-License-Identifier: Apache-2.0
// Copies rows between the callers' arrays (with or without padding, batch first or not) and the
// packed matrices that layers use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/parallel.h"
#include "layers/parts/batch.h"

namespace simdformer {

// The rows of sequences in a caller's array: row i of sequence s is begin[s] + i * row_stride.
template <typename T>
struct SequenceRows {
  std::vector<T*> begin;
  ptrdiff_t row_stride = 0;

  T* row(size_t s, size_t i) const { return begin[s] + static_cast<ptrdiff_t>(i) * row_stride; }
};

inline size_t sequence_length(std::span<const int32_t> cu_seqlens, size_t s) {
  return static_cast<size_t>(cu_seqlens[s + 1] - cu_seqlens[s]);
}

size_t longest_sequence(std::span<const int32_t> cu_seqlens);

// Copies the sequences of a block to rows [cu[s], cu[s + 1]) of the packed matrix, counted from the
// block's first row. The last `extra` rows of each sequence become 0.
void gather(Team& team, const SequenceRows<const float>& from, std::span<const int32_t> cu,
            const Block& block, size_t extra, Matrix packed);

// Copies them back. Rows after a sequence's length, up to padded_length, become 0.
void scatter(Team& team, ConstMatrix packed, std::span<const int32_t> cu, const Block& block,
             size_t padded_length, const SequenceRows<float>& to);

}  // namespace simdformer

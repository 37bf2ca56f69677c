// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/sequence_rows.h"

#include <algorithm>

namespace simdformer {

size_t longest_sequence(std::span<const int32_t> cu_seqlens) {
  size_t result = 0;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    result = std::max(result, sequence_length(cu_seqlens, s));
  }
  return result;
}

void gather(Team& team, const SequenceRows<const float>& from, std::span<const int32_t> cu,
            const Block& block, size_t extra, Matrix packed) {
  team.for_each(block.last_sequence - block.first_sequence, [&](size_t i) {
    const size_t s = block.first_sequence + i;
    const auto first = static_cast<size_t>(cu[s] - cu[block.first_sequence]);
    for (size_t r = 0; r + extra < sequence_length(cu, s); ++r) {
      std::copy_n(from.row(s, r), packed.cols, packed.row(first + r));
    }
    // These rows are projected too, and the results replaced later, so they must be initialized.
    for (size_t r = 0; r < extra; ++r) {
      std::fill_n(packed.row(first + sequence_length(cu, s) - 1 - r), packed.cols, 0.0f);
    }
  });
}

void scatter(Team& team, ConstMatrix packed, std::span<const int32_t> cu, const Block& block,
             size_t padded_length, const SequenceRows<float>& to) {
  team.for_each(block.last_sequence - block.first_sequence, [&](size_t i) {
    const size_t s = block.first_sequence + i;
    const auto first = static_cast<size_t>(cu[s] - cu[block.first_sequence]);
    const size_t length = sequence_length(cu, s);
    for (size_t r = 0; r < length; ++r) {
      std::copy_n(packed.row(first + r), packed.cols, to.row(s, r));
    }
    for (size_t r = length; r < padded_length; ++r) {
      std::fill_n(to.row(s, r), packed.cols, 0.0f);
    }
  });
}

}  // namespace simdformer

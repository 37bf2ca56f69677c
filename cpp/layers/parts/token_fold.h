// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "layers/parts/linear.h"

namespace simdformer {

// A product with the tokens of each sequence, of which only a fold over the tokens is stored. The
// product is computed in blocks of rows and columns and is never stored as a whole.
class TokenFold {
 public:
  // bias: (out_features), added to the product in addition to linear's own bias, or null. Both must
  // outlive this.
  TokenFold(const Linear& linear, Fold fold, const float* bias);

  // The number of chunks of columns.
  size_t num_chunks() const;
  // The size in floats of forward's scratch.
  size_t scratch_size() const;
  // Columns [first_column(chunk), first_column(chunk + 1)).
  size_t first_column(size_t chunk) const;

  // Writes the columns of one chunk: out[s, j] = fold of linear(x)[i, j] over the rows of sequence
  // s, [cu[s] - cu[0], cu[s + 1] - cu[0]). Without rows, -inf for kMax, else 0. out: (cu.size() -
  // 1, out_features). Runs on this thread only.
  void forward(ConstMatrix x, std::span<const int32_t> cu, size_t chunk, float* scratch,
               Matrix out) const;

 private:
  void fold(std::span<const int32_t> cu, size_t row, ConstMatrix product, size_t column,
            Matrix out) const;

  const Linear& linear_;
  Fold fold_;
  const float* bias_;
  size_t chunk_panels_;
};

}  // namespace simdformer

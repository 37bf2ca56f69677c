// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "layers/parts/linear.h"

namespace simdformer {

// A product with each sequence's tokens of which only a fold over them is kept. It passes through
// scratch, a block of rows and of columns at a time, and is nowhere whole.
class TokenFold {
 public:
  // bias: (out_features), added to the product without linear's own, or null. Both outlive this.
  TokenFold(const Linear& linear, Fold fold, const float* bias);

  // The columns come in so many chunks.
  size_t num_chunks() const;
  // Floats of scratch that forward needs.
  size_t scratch_size() const;
  // Columns [first_column(chunk), first_column(chunk + 1)).
  size_t first_column(size_t chunk) const;

  // Writes columns of one chunk: out[s, j] = fold of linear(x)[i, j] over the rows of sequence s,
  // [cu[s] - cu[0], cu[s + 1] - cu[0]); without any -inf of kMax, else 0. out: (cu.size() - 1,
  // out_features). On this thread alone.
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

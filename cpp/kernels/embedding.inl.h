// SPDX-License-Identifier: Apache-2.0
// Sum of a token's table rows (formula at EmbeddingArgs).
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

void embedding_sum(const EmbeddingArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) {
    float* y = a.y + r * a.ldy;
    copy_row(a.cols, a.word + static_cast<size_t>(a.input_ids[r]) * a.cols, y);
    if (a.token_type) {
      const size_t type = a.token_type_ids ? static_cast<size_t>(a.token_type_ids[r]) : 0;
      add_row(a.cols, a.token_type + type * a.cols, y);
    }
    if (a.position) {
      add_row(a.cols, a.position + static_cast<size_t>(a.position_ids[r]) * a.cols, y);
    }
  }
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Sum of a token's table rows (formula at EmbeddingArgs).
#pragma once

#include "kernels/gemm_bf16.inl.h"
#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

SIMDFORMER_INLINE void widen_s8_row(size_t n, const int8_t* SIMDFORMER_RESTRICT values,
                                    const float* SIMDFORMER_RESTRICT scale,
                                    float* SIMDFORMER_RESTRICT y) {
  for (size_t begin = 0; begin < n; begin += kS8Group) {
    const float factor = scale[begin / kS8Group];
    const size_t end = min_size(begin + kS8Group, n);
    for (size_t i = begin; i < end; ++i) y[i] = factor * static_cast<float>(values[i]);
  }
}

SIMDFORMER_INLINE void widen_bf16_row(size_t n, const uint16_t* SIMDFORMER_RESTRICT x,
                                      float* SIMDFORMER_RESTRICT y) {
  for (size_t i = 0; i < n; ++i) y[i] = from_bf16(x[i]);
}

SIMDFORMER_INLINE void table_row(size_t cols, const TableRows& table, size_t row, float* y) {
  if (table.float32) return copy_row(cols, table.float32 + row * cols, y);
  if (table.bfloat16) return widen_bf16_row(cols, table.bfloat16 + row * cols, y);
  widen_s8_row(cols, table.values + row * cols, table.scale + row * ceil_div(cols, kS8Group), y);
}

void embedding_sum(const EmbeddingArgs& a) {
  for (size_t r = 0; r < a.rows; ++r) {
    float* y = a.y + r * a.ldy;
    table_row(a.cols, a.word, static_cast<size_t>(a.input_ids[r]), y);
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

// SPDX-License-Identifier: Apache-2.0
// Relative positions that depend on content: products of rows with a table of relative embeddings,
// selected by an index for each query and key (Shaw et al. 2018, Transformer-XL, DeBERTa).
#pragma once

#include <cstdint>
#include <vector>

#include "layers/attention/scored_attention.h"
#include "layers/parts/linear.h"

namespace simdformer {

// index[i * cols + j] is the row of the table for row i of the operand and column j.
struct RelativeIndex {
  const int32_t* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
};

// out[b, h, i, j] += scale x[b, h, i] . table_h[index[i, j]]. tables: one for all heads or one per
// head, each a Linear without bias whose weight is the table. If by_columns is set, the rows of x
// are keys, and out[b, h, j, i] is changed instead.
void add_relative_scores(const Operand& x, const std::vector<Linear>& tables,
                         const RelativeIndex& index, float scale, bool by_columns,
                         const Strided<float>& out, int num_threads, const StopCheck& stop_check);

// out[b, h, i] += sum_j weights[b, h, i, j] table_h[index[i, j]]. tables: as above, with the
// transposed table as weight.
void add_relative_values(const Operand& weights, const std::vector<Linear>& tables,
                         const RelativeIndex& index, const Strided<float>& out, int num_threads,
                         const StopCheck& stop_check);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Attention with positions that depend on content: rows of tables, selected by the distance between
// query and key, are multiplied by queries, keys or weights (Shaw et al. 2018, Dai et al. 2019, He
// et al. 2021).
#pragma once

#include <cstdint>
#include <vector>

#include "layers/parts/linear.h"

namespace simdformer {

// Of a query i and a key j, with r = rows[center + j - i]:
//   score[i, j] = scale ((q[i] + content_bias) . k[j]
//                        + (q[i] + position_bias) . query_table[r] + k[j] . key_table[r])
//   out[i] = sum_j weight[i, j] (v[j] + value_table[r])
// Empty parts are not used. There is one table per head, or one for all heads.
struct RelativeEmbeddings {
  std::vector<Linear> query_tables;  // weight: (table rows, head_dim)
  std::vector<Linear> key_tables;
  std::vector<Linear> value_tables;  // weight: the table's transpose, (value_dim, table rows)
  Buffer<float> content_bias;        // (num_heads, head_dim)
  Buffer<float> position_bias;
  std::vector<int32_t> rows;
  size_t center = 0;
};

// Throws std::invalid_argument unless the heads' tables are of one size and hold all rows.
void check_rows(const RelativeEmbeddings& embeddings);

// Throws std::invalid_argument unless the tables match an attention of these sizes.
void check_sizes(const RelativeEmbeddings& embeddings, size_t num_heads, size_t head_dim);

// The size in floats of the scratch for attend_relative.
size_t relative_scratch(const RelativeEmbeddings& embeddings, size_t max_keys, size_t head_dim);

// One head of one sequence. args: as for the attention kernel. past: the position of its first
// query; its first key is at position 0.
void attend_relative(const Kernels& kernels, const RelativeEmbeddings& embeddings, size_t head,
                     size_t past, const AttentionArgs& args, float* scratch);

}  // namespace simdformer

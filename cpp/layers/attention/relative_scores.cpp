// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/relative_scores.h"

#include <algorithm>

namespace simdformer {
namespace {

constexpr size_t kStrip = 32;  // rows per strip

// body(batch, head, first_row, rows, strip), where strip is an array of kStrip x cols floats per
// member.
template <typename Body>
void for_strips(const Operand& x, size_t cols, int num_threads, const StopCheck& stop_check,
                Body&& body) {
  const size_t strips = (x.num_rows + kStrip - 1) / kStrip;
  std::vector<Buffer<float>> scratch(static_cast<size_t>(num_threads));
  for (Buffer<float>& buffer : scratch) buffer.reserve(kStrip * cols);
  run_team(num_threads, stop_check, [&](Team& team) {
    team.for_each(x.batches * x.heads * strips, [&](size_t task) {
      const size_t pair = task / strips;
      const size_t first = task % strips * kStrip;
      body(pair / x.heads, pair % x.heads, first, std::min(kStrip, x.num_rows - first),
           scratch[team.rank()].data());
    });
  });
}

const Linear& of_head(const std::vector<Linear>& tables, size_t head) {
  return tables[tables.size() == 1 ? 0 : head];
}

}  // namespace

void add_relative_scores(const Operand& x, const std::vector<Linear>& tables,
                         const RelativeIndex& index, float scale, bool by_columns,
                         const Strided<float>& out, int num_threads, const StopCheck& stop_check) {
  const size_t table_rows = tables[0].out_features();
  for_strips(x, table_rows, num_threads, stop_check,
             [&](size_t batch, size_t head, size_t first, size_t rows, float* strip) {
               const ConstMatrix in{x.rows.at(batch, head, first), rows, x.cols,
                                    static_cast<size_t>(x.rows.row_stride)};
               of_head(tables, head).forward_rows(in, {strip, rows, table_rows, table_rows}, {});
               for (size_t i = 0; i < rows; ++i) {
                 const int32_t* at = index.data + (first + i) * index.cols;
                 const float* products = strip + i * table_rows;
                 float* y = by_columns ? out.at(batch, head, 0) + first + i
                                       : out.at(batch, head, first + i);
                 const ptrdiff_t step = by_columns ? out.row_stride : 1;
                 for (size_t j = 0; j < index.cols; ++j) {
                   y[static_cast<ptrdiff_t>(j) * step] += scale * products[at[j]];
                 }
               }
             });
}

void add_relative_values(const Operand& weights, const std::vector<Linear>& tables,
                         const RelativeIndex& index, const Strided<float>& out, int num_threads,
                         const StopCheck& stop_check) {
  const size_t table_rows = tables[0].in_features();
  for_strips(weights, table_rows, num_threads, stop_check,
             [&](size_t batch, size_t head, size_t first, size_t rows, float* strip) {
               std::fill_n(strip, rows * table_rows, 0.0f);
               for (size_t i = 0; i < rows; ++i) {
                 const int32_t* at = index.data + (first + i) * index.cols;
                 const float* w = weights.rows.at(batch, head, first + i);
                 for (size_t j = 0; j < index.cols; ++j)
                   strip[i * table_rows + static_cast<size_t>(at[j])] += w[j];
               }
               const Linear& table = of_head(tables, head);
               const Matrix y{out.at(batch, head, first), rows, table.out_features(),
                              static_cast<size_t>(out.row_stride)};
               table.forward_rows({strip, rows, table_rows, table_rows}, y, {.residual = y});
             });
}

}  // namespace simdformer

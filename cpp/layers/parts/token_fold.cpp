// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/token_fold.h"

#include <algorithm>
#include <limits>

namespace simdformer {
namespace {

// Columns per chunk: 64 KB with a block's rows, which stay in L2 together with the input rows. int8
// quantizes the rows again for each chunk, so it uses more columns.
constexpr size_t kChunkColumns = 128;
constexpr size_t kChunkColumnsInt8 = 512;

// The next input rows are prefetched. In a product with few columns they are needed as fast as
// memory can deliver them: 42 -> 58 Gflop/s with 32 columns of depth 128 (Zen 3, one thread of a
// busy machine).
void prefetch(ConstMatrix rows) {
  constexpr size_t kLine = 64 / sizeof(float);
  constexpr int kIntoL2 = 2;
  for (size_t i = 0; i < rows.rows; ++i) {
    for (size_t j = 0; j < rows.cols; j += kLine) __builtin_prefetch(rows.row(i) + j, 0, kIntoL2);
  }
}

}  // namespace

TokenFold::TokenFold(const Linear& linear, Fold fold, const float* bias)
    : linear_(linear), fold_(fold), bias_(bias) {
  const size_t columns = linear.is_int8() ? kChunkColumnsInt8 : kChunkColumns;
  chunk_panels_ = std::max<size_t>(1, columns / linear.kernels().gemm_nr);
}

size_t TokenFold::num_chunks() const {
  return (linear_.num_panels() + chunk_panels_ - 1) / chunk_panels_;
}

size_t TokenFold::scratch_size() const {
  return kRowBlock * chunk_panels_ * linear_.kernels().gemm_nr;
}

size_t TokenFold::first_column(size_t chunk) const {
  return std::min(linear_.out_features(), chunk * chunk_panels_ * linear_.kernels().gemm_nr);
}

void TokenFold::forward(ConstMatrix x, std::span<const int32_t> cu, size_t chunk, float* scratch,
                        Matrix out) const {
  const size_t begin = chunk * chunk_panels_;
  const size_t end = std::min(linear_.num_panels(), begin + chunk_panels_);
  const size_t column = first_column(chunk);
  const size_t columns = first_column(chunk + 1) - column;
  const float start = fold_ == Fold::kMax ? -std::numeric_limits<float>::infinity() : 0.0f;
  for (size_t s = 0; s < out.rows; ++s) std::fill_n(out.row(s) + column, columns, start);
  const size_t stride = chunk_panels_ * linear_.kernels().gemm_nr;
  const bool few_columns = num_chunks() == 1;
  const size_t block = few_columns ? 2 * linear_.kernels().gemm_mr : kRowBlock;
  for (size_t row = 0; row < x.rows; row += block) {
    const size_t rows = std::min(block, x.rows - row);
    const size_t next = row + rows;
    if (few_columns) prefetch(x.slice(next, std::min(block, x.rows - next)));
    const Matrix product{scratch, rows, columns, stride};
    linear_.forward_panels(x.slice(row, rows), begin, end, Activation::kIdentity, product);
    fold(cu, row, product, column, out);
  }
}

// Folds the rows of a block into the results of their sequences.
void TokenFold::fold(std::span<const int32_t> cu, size_t row, ConstMatrix product, size_t column,
                     Matrix out) const {
  const auto first = static_cast<int32_t>(row) + cu[0];
  const auto last = first + static_cast<int32_t>(product.rows);
  const auto after = std::upper_bound(cu.begin(), cu.end(), first);
  for (size_t s = static_cast<size_t>(after - cu.begin()) - 1; s + 1 < cu.size(); ++s) {
    if (cu[s] >= last) return;
    const auto from = static_cast<size_t>(std::max(cu[s], first) - first);
    const auto to = static_cast<size_t>(std::min(cu[s + 1], last) - first);
    linear_.kernels().fold_rows_into({.fold = fold_,
                                      .rows = to - from,
                                      .cols = product.cols,
                                      .x = product.row(from),
                                      .ldx = product.stride,
                                      .bias = bias_ ? bias_ + column : nullptr,
                                      .y = out.row(s) + column});
  }
}

}  // namespace simdformer

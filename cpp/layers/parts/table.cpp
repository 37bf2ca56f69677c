// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/table.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace simdformer {
namespace {

template <typename T>
Buffer<T> copy_of(const T* data, size_t size) {
  Buffer<T> copy(size);
  std::copy_n(data, size, copy.data());
  return copy;
}

uint16_t rounded(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);  // still NaN
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

Table::Table(ConstMatrix rows)
    : rows_(rows.rows), cols_(rows.cols), float32_(rows.rows * rows.cols) {
  for (size_t r = 0; r < rows_; ++r) {
    std::copy_n(rows.row(r), cols_, float32_.data() + r * cols_);
  }
}

Table::Table(size_t cols, Buffer<float> float32, Buffer<uint16_t> bfloat16, Buffer<int8_t> values,
             Buffer<float> scale)
    : cols_(cols),
      float32_(std::move(float32)),
      bfloat16_(std::move(bfloat16)),
      values_(std::move(values)),
      scale_(std::move(scale)) {
  const size_t size = float32_.size() + bfloat16_.size() + values_.size();
  check(size == std::max({float32_.size(), bfloat16_.size(), values_.size()}),
        "a table of embeddings has numbers of two types");
  if (size == 0) return;
  check(cols > 0 && size % cols == 0, "a table of embeddings has ", size, " elements in ", cols,
        " columns");
  rows_ = size / cols;
  const size_t scales = values_.size() > 0 ? rows_ * num_s8_groups(cols) : 0;
  check(scale_.size() == scales, "a table of embeddings has ", scale_.size(), " scales, expected ",
        scales);
}

Table::Table(const S8Matrix& rows)
    : rows_(rows.rows),
      cols_(rows.cols),
      values_(copy_of(rows.values, rows.rows * rows.cols)),
      scale_(copy_of(rows.scale, rows.rows * num_s8_groups(rows.cols))) {
  check(rows.outliers.empty(), "a table of embeddings has no outliers, got ", rows.outliers.size());
}

Table Table::in_bfloat16(ConstMatrix rows) {
  Table table;
  table.rows_ = rows.rows;
  table.cols_ = rows.cols;
  table.bfloat16_ = Buffer<uint16_t>(rows.rows * rows.cols);
  for (size_t r = 0; r < rows.rows; ++r) {
    std::transform(rows.row(r), rows.row(r) + rows.cols, table.bfloat16_.data() + r * rows.cols,
                   rounded);
  }
  return table;
}

TableRows Table::view() const {
  return {float32_.data(), bfloat16_.data(), values_.data(), scale_.data()};
}

}  // namespace simdformer

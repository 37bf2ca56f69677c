// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "layers/parts/quantized.h"

namespace simdformer {

// A table of embeddings whose rows are looked up, in float32, bfloat16 or int8.
class Table {
 public:
  Table() = default;
  // Copies of the numbers. int8 must be without outliers.
  explicit Table(ConstMatrix rows);
  explicit Table(const S8Matrix& rows);
  // The numbers of one type, (.., cols); the other buffers are empty.
  Table(size_t cols, Buffer<float> float32, Buffer<uint16_t> bfloat16, Buffer<int8_t> values,
        Buffer<float> scale);
  // The numbers rounded to bfloat16, to nearest, ties to even.
  static Table in_bfloat16(ConstMatrix rows);

  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  // For the kernels. A table without rows has no pointers.
  TableRows view() const;
  // One of these has numbers if there are rows.
  std::span<const float> float32() const { return {float32_.data(), float32_.size()}; }
  std::span<const uint16_t> bfloat16() const { return {bfloat16_.data(), bfloat16_.size()}; }
  std::span<const int8_t> values() const { return {values_.data(), values_.size()}; }
  // Of values: (rows, num_s8_groups(cols)).
  std::span<const float> scale() const { return {scale_.data(), scale_.size()}; }

 private:
  size_t rows_ = 0;
  size_t cols_ = 0;
  Buffer<float> float32_;
  Buffer<uint16_t> bfloat16_;
  Buffer<int8_t> values_;
  Buffer<float> scale_;
};

}  // namespace simdformer

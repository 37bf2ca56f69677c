// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "layers/parts/panels.h"

namespace simdformer {
namespace {

void check_outliers(std::span<const int32_t> outliers, size_t cols) {
  check(outliers.size() <= kS8MaxOutliers, "outliers has ", outliers.size(), " columns, at most ",
        kS8MaxOutliers, " are allowed");
  for (size_t i = 0; i < outliers.size(); ++i) {
    check(outliers[i] >= 0 && static_cast<size_t>(outliers[i]) < cols, "outliers[", i, "] is ",
          outliers[i], ", the weight has ", cols, " columns");
    check(i == 0 || outliers[i] > outliers[i - 1], "outliers must ascend, got ",
          outliers[i - 1 + (i == 0)], " then ", outliers[i], " at index ", i);
  }
}

// x with outliers replaced by 0.
Buffer<float> without(std::span<const int32_t> outliers, size_t cols, const float* x) {
  Buffer<float> rest(cols);
  std::copy_n(x, cols, rest.data());
  for (const int32_t column : outliers) rest[static_cast<size_t>(column)] = 0.0f;
  return rest;
}

}  // namespace

void quantize_weight(ConstMatrix weight, std::span<const int32_t> outliers, int8_t* values,
                     float* scale) {
  check_outliers(outliers, weight.cols);
  const size_t groups = num_s8_groups(weight.cols);
  for (size_t row = 0; row < weight.rows; ++row) {
    const Buffer<float> x = without(outliers, weight.cols, weight.row(row));
    for (size_t group = 0; group < groups; ++group) {
      const size_t begin = group * kS8Group;
      const size_t end = std::min(begin + kS8Group, weight.cols);
      float largest = 0.0f;
      for (size_t p = begin; p < end; ++p) {
        check(std::isfinite(x[p]), "weight[", row, ", ", p, "] is ", x[p],
              "; only finite numbers can be quantized");
        largest = std::max(largest, std::fabs(x[p]));
      }
      const float step = std::max(largest / 127.0f, std::numeric_limits<float>::min());
      scale[row * groups + group] = step;
      for (size_t p = begin; p < end; ++p) {
        const float code = std::clamp(std::nearbyint(x[p] / step), -127.0f, 127.0f);
        values[row * weight.cols + p] = static_cast<int8_t>(code);
      }
    }
  }
}

PackedS8::PackedS8(const Kernels& kernels, const S8Matrix& weight)
    : packed_(kernels.s8_packed_size(weight.rows, weight.cols), Use::kReadOften),
      ranges_(kernels.s8_ranges_size(weight.rows, weight.cols), Use::kReadOften) {
  check_outliers(weight.outliers, weight.cols);
  kernels.pack_weight_s8({.n = weight.rows,
                          .k = weight.cols,
                          .weight = weight.values,
                          .scale = weight.scale,
                          .packed = packed_.data(),
                          .ranges = ranges_.data()});
  const size_t count = weight.outliers.size();
  if (count == 0) return;
  outlier_weight_ = Buffer<float>(kernels.packed_size(weight.rows, count), Use::kReadOften);
  const size_t panels = num_panels(kernels, weight.rows);
  kernels.pack_weight(weight.rows, count, weight.outlier_weight, count, 0, panels,
                      outlier_weight_.data());
  begin_ = Buffer<uint32_t>(num_s8_groups(weight.cols) + 1);
  column_ = Buffer<uint32_t>(count);
  kept_ = Buffer<float>(weight.cols);
  std::fill_n(begin_.data(), begin_.size(), 0u);
  std::fill_n(kept_.data(), kept_.size(), 1.0f);
  for (size_t i = 0; i < count; ++i) {
    const auto column = static_cast<size_t>(weight.outliers[i]);
    column_[i] = static_cast<uint32_t>(column);
    kept_[column] = 0.0f;
    for (size_t g = column / kS8Group + 1; g < begin_.size(); ++g) ++begin_[g];
  }
}

S8Numbers PackedS8::unpack(const Kernels& kernels, size_t rows, size_t cols) const {
  const size_t groups = num_s8_groups(cols);
  const size_t count = column_.size();
  const auto [piece, flip] = kernels.s8_layout;
  S8Numbers numbers{.values = Buffer<int8_t>(rows * cols),
                    .scale = Buffer<float>(rows * groups),
                    .outliers = Buffer<int32_t>(count),
                    .outlier_weight = Buffer<float>(rows * count)};
  for (size_t j = 0; j < rows; ++j) {
    const size_t panel = j / kernels.s8_nr * kernels.s8_nr;
    const size_t width = panel_width(rows, kernels.s8_nr, kernels.lanes, panel);
    const int8_t* packed = packed_.data() + panel * groups * kS8Group;
    for (size_t p = 0; p < cols; ++p) {
      const int8_t stored = packed[(p / piece * width + j - panel) * piece + p % piece];
      numbers.values[j * cols + p] = static_cast<int8_t>(stored ^ flip);
    }
    const float* ranges = ranges_.data() + panel * groups * 2;
    for (size_t group = 0; group < groups; ++group) {
      numbers.scale[j * groups + group] = ranges[group * 2 * width + j - panel];
    }
  }
  for (size_t i = 0; i < count; ++i) numbers.outliers[i] = static_cast<int32_t>(column_[i]);
  for_each_packed(rows, count, kernels.gemm_nr, kernels.lanes, [&](size_t j, size_t p, size_t at) {
    numbers.outlier_weight[j * count + p] = outlier_weight_[at];
  });
  return numbers;
}

S8Weight PackedS8::view() const {
  return {.packed = packed_.data(),
          .ranges = ranges_.data(),
          .outliers = outliers(),
          .num_outliers = column_.size(),
          .outlier_weight = outlier_weight_.data()};
}

}  // namespace simdformer

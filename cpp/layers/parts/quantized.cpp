// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
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

// y = H x / 8 for each whole group of n columns.
void rotate(size_t n, float* x) {
  constexpr size_t kApart = kS8Group / kS8RotationOrder;
  for (size_t begin = 0; begin + kS8Group <= n; begin += kS8Group) {
    for (size_t half = kS8RotationOrder / 2; half > 0; half /= 2) {
      for (size_t i = 0; i < kS8Group; ++i) {
        if (((i / kApart) & half) != 0) continue;
        float& first = x[begin + i];
        float& second = x[begin + i + half * kApart];
        const float difference = first - second;
        first += second;
        second = difference;
      }
    }
    for (size_t i = 0; i < kS8Group; ++i) x[begin + i] /= static_cast<float>(kS8RotationOrder);
  }
}

// The step of the codes of x[0, n).
float step_of(size_t n, const float* x, bool bounded) {
  float least = std::numeric_limits<float>::min();
  for (size_t p = 0; p < n; ++p) least = std::max(least, std::fabs(x[p]) / 127.0f);
  if (!bounded) return least;
  for (size_t p = 0; p + 1 < n; p += 2) {
    least = std::max(least, std::fabs(x[p] + x[p + 1]) / static_cast<float>(kS8PairLimit));
  }
  return least;
}

// Rounding both of a pair up may exceed the limit by 1; then the larger one is rounded down.
void bound_pairs(size_t n, int8_t* values) {
  for (size_t p = 0; p + 1 < n; p += 2) {
    if (std::abs(values[p] + values[p + 1]) <= kS8PairLimit) continue;
    int8_t& larger = values[p + (std::abs(values[p + 1]) > std::abs(values[p]))];
    larger = static_cast<int8_t>(larger > 0 ? larger - 1 : larger + 1);
  }
}

// Whether all pairs of an even column and the next one are within kS8PairLimit.
bool is_bounded(const S8Matrix& weight) {
  for (size_t row = 0; row < weight.rows; ++row) {
    const int8_t* values = weight.values + row * weight.cols;
    for (size_t p = 0; p + 1 < weight.cols; p += 2) {
      if (std::abs(values[p] + values[p + 1]) > kS8PairLimit) return false;
    }
  }
  return true;
}

}  // namespace

void quantize_weight(ConstMatrix weight, std::span<const int32_t> outliers, bool rotated,
                     int8_t* values, float* scale) {
  check_outliers(outliers, weight.cols);
  const size_t groups = num_s8_groups(weight.cols);
  for (size_t row = 0; row < weight.rows; ++row) {
    Buffer<float> x = without(outliers, weight.cols, weight.row(row));
    for (size_t p = 0; p < weight.cols; ++p) {
      check(std::isfinite(x[p]), "weight[", row, ", ", p, "] is ", x[p],
            "; only finite numbers can be quantized");
    }
    if (rotated) rotate(weight.cols, x.data());
    for (size_t group = 0; group < groups; ++group) {
      const size_t begin = group * kS8Group;
      const size_t end = std::min(begin + kS8Group, weight.cols);
      const float step = step_of(end - begin, x.data() + begin, rotated);
      scale[row * groups + group] = step;
      int8_t* codes = values + row * weight.cols;
      for (size_t p = begin; p < end; ++p) {
        const float code = std::clamp(std::nearbyint(x[p] / step), -127.0f, 127.0f);
        codes[p] = static_cast<int8_t>(code);
      }
      if (rotated) bound_pairs(end - begin, codes + begin);
    }
  }
}

PackedS8::PackedS8(const Kernels& kernels, const S8Matrix& weight)
    : packed_(kernels.s8_packed_size(weight.rows, weight.cols), Use::kReadOften),
      ranges_(kernels.s8_ranges_size(weight.rows, weight.cols), Use::kReadOften),
      rotated_(weight.rotated),
      bounded_(weight.rotated && is_bounded(weight)) {
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
                    .outlier_weight = Buffer<float>(rows * count),
                    .rotated = rotated_};
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
          .outlier_weight = outlier_weight_.data(),
          .rotated = rotated_,
          .bounded = bounded_};
}

}  // namespace simdformer

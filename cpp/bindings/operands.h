// SPDX-License-Identifier: Apache-2.0
// Arrays of rank 4 as operands with their extents, and the linear maps of their heads.
#pragma once

#include "bindings/strided.h"
#include "layers/attention/scored_attention.h"

namespace simdformer::bindings {

inline Operand operand(const char* name, const py::object& object) {
  const Strided<const float> rows =
      strided<float>(name, object, {kAnyExtent, kAnyExtent, kAnyExtent, kAnyExtent});
  const auto array = py::array::ensure(object);
  const auto extent = [&](int i) { return static_cast<size_t>(array.shape(i)); };
  return {rows, extent(0), extent(1), extent(2), extent(3)};
}

// Weights (heads or 1, out, in) and a bias (out) -> one Linear per head.
inline std::vector<Linear> projections(const char* name, const py::object& weight_object,
                                       const py::object& bias_object, size_t heads,
                                       size_t in_features) {
  std::vector<Linear> linears;
  if (weight_object.is_none()) return linears;
  const FloatArray weight = float_array(name, weight_object, 3);
  const auto count = static_cast<size_t>(weight.shape(0));
  const auto rows = static_cast<size_t>(weight.shape(1));
  check(count == 1 || count == heads, name, " has ", count, " heads, expected 1 or ", heads);
  check(static_cast<size_t>(weight.shape(2)) == in_features, name, " has shape ", shape_of(weight),
        ", its last dimension must be ", in_features);
  const OptionalVector bias("bias", bias_object, rows);
  for (size_t i = 0; i < count; ++i) {
    linears.emplace_back(
        ConstMatrix{weight.data() + i * rows * in_features, rows, in_features, in_features},
        bias.data());
  }
  return linears;
}

}  // namespace simdformer::bindings

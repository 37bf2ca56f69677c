// SPDX-License-Identifier: Apache-2.0
// A quantized weight as NumPy arrays, which are checked against each other.
#pragma once

#include <vector>

#include "bindings/numpy.h"
#include "layers/parts/quantized.h"

namespace simdformer::bindings {

using Int8Array = py::array_t<int8_t, py::array::c_style>;

struct S8Arrays {
  Int8Array values;
  FloatArray scale;
  std::vector<int32_t> outliers;
  FloatArray outlier_weight;
  bool rotated;

  S8Arrays(const py::object& values_object, const py::object& scale_object,
           const py::object& outliers_object, const py::object& outlier_weight_object,
           bool is_rotated)
      : scale(float_array("scale", scale_object, 2)), rotated(is_rotated) {
    const py::array array = py::array::ensure(values_object);
    if (!array || !py::isinstance<py::array_t<int8_t, 0>>(array)) {
      throw py::type_error("values must be an array of int8");
    }
    check(array.ndim() == 2 && array.size() > 0,
          "values must have 2 dimensions, none of them 0, got shape ", shape_of(array));
    values = Int8Array::ensure(array);
    const size_t groups = num_s8_groups(cols());
    check(matrix(scale).rows == rows() && matrix(scale).cols == groups, "scale must have shape (",
          rows(), ", ", groups, "), got ", shape_of(scale));
    if (outliers_object.is_none()) return;
    outliers = id_vector("outliers", outliers_object);
    outlier_weight = float_array("outlier_weight", outlier_weight_object, 2);
    check(matrix(outlier_weight).rows == rows() && matrix(outlier_weight).cols == outliers.size(),
          "outlier_weight must have shape (", rows(), ", ", outliers.size(), "), got ",
          shape_of(outlier_weight));
  }

  size_t rows() const { return static_cast<size_t>(values.shape(0)); }
  size_t cols() const { return static_cast<size_t>(values.shape(1)); }
  S8Matrix view() const {
    return {.rows = rows(),
            .cols = cols(),
            .values = values.data(),
            .scale = scale.data(),
            .outliers = outliers,
            .outlier_weight = outliers.empty() ? nullptr : outlier_weight.data(),
            .rotated = rotated};
  }
};

}  // namespace simdformer::bindings

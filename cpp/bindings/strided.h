// SPDX-License-Identifier: Apache-2.0
// NumPy arrays of rank 4 as strided operands, without a copy.
#pragma once

#include <algorithm>
#include <array>
#include <string>

#include "bindings/numpy.h"
#include "layers/attention/attention_call.h"

namespace simdformer::bindings {

constexpr size_t kAnyExtent = static_cast<size_t>(-1);
using Extents = std::array<size_t, 4>;  // batch, heads, rows, cols

// The shape of an array, for error messages. It is formatted only for an error, because that takes
// longer than all checks of a small call.
struct ShapeOf {
  const py::array& array;
  friend void append(std::string& text, const ShapeOf& shape) { text += shape_of(shape.array); }
};

// Checks rank 4, elements of T, and a contiguous last dimension. Each extent must have the expected
// value or, except the last, 1, which broadcasts with stride 0.
template <typename T>
Strided<const T> strided(const char* name, const py::object& object, const Extents& wanted) {
  const auto array = py::array::ensure(object);
  check(array && array.ndim() == 4, name, " must have 4 dimensions");
  if (!py::isinstance<py::array_t<T, 0>>(array)) {
    throw py::type_error(concat(name, " has dtype ", py::str(array.dtype()).cast<std::string>()));
  }
  constexpr auto kSize = static_cast<py::ssize_t>(sizeof(T));
  std::array<ptrdiff_t, 4> strides{};
  for (int i = 0; i < 4; ++i) {
    const auto extent = static_cast<size_t>(array.shape(i));
    const size_t want = wanted[static_cast<size_t>(i)];
    check(want == kAnyExtent || extent == want || (i < 3 && extent == 1), name, " has shape ",
          ShapeOf{array}, ", dimension ", i, " must be ", want);
    check(array.strides(i) % kSize == 0, name, " is not aligned");
    if (extent != 1) strides[static_cast<size_t>(i)] = array.strides(i) / kSize;
  }
  check(array.size() == 0 || array.shape(3) == 1 || array.strides(3) == kSize, name,
        "'s last dimension has a stride");
  return {static_cast<const T*>(array.data()), strides[0], strides[1], strides[2]};
}

// A bool array as bytes for the kernels.
inline Strided<const uint8_t> optional_mask(const char* name, const py::object& object,
                                            const Extents& wanted) {
  if (object.is_none()) return {};
  const Strided<const bool> mask = strided<bool>(name, object, wanted);
  return {reinterpret_cast<const uint8_t*>(mask.data), mask.batch_stride, mask.head_stride,
          mask.row_stride};
}

template <typename T>
Strided<const T> optional_strided(const char* name, const py::object& object,
                                  const Extents& wanted) {
  return object.is_none() ? Strided<const T>{} : strided<T>(name, object, wanted);
}

// As strided, for an output: every extent must have the expected value.
inline Strided<float> strided_output(const char* name, const py::object& object,
                                     const Extents& wanted) {
  const auto array = py::array::ensure(object);
  const Strided<const float> view = strided<float>(name, object, wanted);
  for (int i = 0; i < 4; ++i) {
    check(static_cast<size_t>(array.shape(i)) == wanted[static_cast<size_t>(i)], name,
          " has shape ", ShapeOf{array});
  }
  return {static_cast<float*>(const_cast<py::array&>(array).mutable_data()), view.batch_stride,
          view.head_stride, view.row_stride};
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// NumPy arguments. Dtype and rank are checked here, once, and errors report them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/check.h"
#include "base/parallel.h"
#include "base/thread_count.h"
#include "bindings/gil.h"

namespace simdformer::bindings {

namespace py = pybind11;

using FloatArray = py::array_t<float, py::array::c_style>;
using IdArray = py::array_t<int32_t, py::array::c_style>;

inline std::string shape_of(const py::array& array) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    text += concat(i ? ", " : "", array.shape(i));
  }
  text += array.ndim() == 1 ? ",)" : ")";
  return text;
}

// A C-contiguous float32 array of the given rank. Other dtypes are errors, not silent casts.
inline FloatArray float_array(const char* name, const py::object& object, py::ssize_t ndim) {
  const py::array array = py::array::ensure(object);
  if (!array) throw py::type_error(concat(name, " must be an array of float32"));
  // Compares by equivalence, because the dtype of an unpickled array is a different object.
  if (!py::isinstance<py::array_t<float, 0>>(array)) {
    throw py::type_error(
        concat(name, " must be float32, got ", py::str(array.dtype()).cast<std::string>()));
  }
  check(array.ndim() == ndim, name, " must have ", ndim, " dimensions, got shape ",
        shape_of(array));
  return FloatArray::ensure(array);
}

// A private C-contiguous int32 copy of integer ids, which cannot be changed after the check.
inline std::vector<int32_t> id_vector(const char* name, const py::object& object) {
  const py::array array = py::array::ensure(object);
  const char kind = array ? array.dtype().kind() : 'O';
  if (kind != 'i' && kind != 'u')
    throw py::type_error(concat(name, " must be an array of integers"));
  check(array.ndim() == 1, name, " must have 1 dimension, got shape ", shape_of(array));
  const auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast>::ensure(array);
  std::vector<int32_t> ids(static_cast<size_t>(wide.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t id = wide.data()[i];
    check(id >= INT32_MIN && id <= INT32_MAX, name, "[", i, "] is ", id, ", beyond 32 bits");
    ids[i] = static_cast<int32_t>(id);
  }
  return ids;
}

inline ConstMatrix matrix(const FloatArray& array) {
  const auto cols = static_cast<size_t>(array.shape(1));
  return {array.data(), static_cast<size_t>(array.shape(0)), cols, cols};
}

inline Matrix mutable_matrix(FloatArray& array) {
  const auto cols = static_cast<size_t>(array.shape(1));
  return {array.mutable_data(), static_cast<size_t>(array.shape(0)), cols, cols};
}

inline FloatArray empty_matrix(size_t rows, size_t cols) {
  return FloatArray({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(cols)});
}

inline Buffer<float> copied(const FloatArray& array) {
  Buffer<float> buffer(static_cast<size_t>(array.size()));
  std::copy_n(array.data(), buffer.size(), buffer.data());
  return buffer;
}

// A vector argument with `size` elements, or None.
class OptionalVector {
 public:
  OptionalVector(const char* name, const py::object& object, size_t size) {
    if (object.is_none()) return;
    array_ = float_array(name, object, 1);
    check(static_cast<size_t>(array_.size()) == size, name, " must have shape (", size, ",), got ",
          shape_of(array_));
    present_ = true;
  }
  const float* data() const { return present_ ? array_.data() : nullptr; }

 private:
  FloatArray array_;
  bool present_ = false;
};

// pybind11 holds layers as shared_ptr<T>; layers share each other as shared_ptr<const T>.
template <typename T>
std::vector<std::shared_ptr<const T>> constant(const char* name,
                                               const std::vector<std::shared_ptr<T>>& layers) {
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i]) throw py::type_error(concat(name, "[", i, "] is None"));
  }
  return {layers.begin(), layers.end()};
}

// Looks a name up in a list of {name, value}. The error lists the known names.
template <typename Value, size_t N>
Value by_name(const char* what, const std::string& name,
              const std::pair<const char*, Value> (&entries)[N]) {
  std::string known;
  for (const auto& [entry, value] : entries) {
    if (name == entry) return value;
    known += concat(known.empty() ? "" : ", ", entry);
  }
  throw py::value_error(concat("unknown ", what, " '", name, "'; known: ", known));
}

}  // namespace simdformer::bindings

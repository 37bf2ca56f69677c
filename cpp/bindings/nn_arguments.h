// SPDX-License-Identifier: Apache-2.0
// Arguments of an attention or a stack: sequences, masks, positions.
#pragma once

#include <optional>

#include "bindings/strided.h"
#include "layers/attention/multihead_attention.h"
#include "layers/parts/sequence_rows.h"

namespace simdformer::bindings {

template <typename T>
using Shared = std::shared_ptr<T>;

// The address of row i of sequence s. 3-D arrays are (sequence, row, feature), 2-D ones are packed.
template <typename T>
SequenceRows<T> sequence_rows(const char* name, const py::object& object,
                              const std::vector<int32_t>& cu, size_t features) {
  const py::array array = py::array::ensure(object);
  check(array && (array.ndim() == 2 || array.ndim() == 3), name, " must have 2 or 3 dimensions");
  if (!py::isinstance<py::array_t<float, 0>>(array)) {
    throw py::type_error(
        concat(name, " must be float32, got ", py::str(array.dtype()).cast<std::string>()));
  }
  const int last = static_cast<int>(array.ndim()) - 1;
  constexpr py::ssize_t kFloat = sizeof(float);
  check(static_cast<size_t>(array.shape(last)) == features, name, " has ", array.shape(last),
        " features, expected ", features);
  check(array.shape(last) <= 1 || array.size() == 0 || array.strides(last) == kFloat, name,
        "'s last dimension has a stride");
  SequenceRows<T> rows;
  rows.row_stride = array.strides(last - 1) / kFloat;
  T* data = static_cast<T*>(const_cast<void*>(array.data()));
  if (last == 2) {
    check(static_cast<size_t>(array.shape(0)) + 1 == cu.size(), name, " holds ", array.shape(0),
          " sequences, cu_seqlens ", cu.size() - 1);
  } else {
    check(array.shape(0) == cu.back(), name, " holds ", array.shape(0),
          " rows, cu_seqlens ends with ", cu.back());
  }
  for (size_t s = 0; s + 1 < cu.size(); ++s) {
    check(last == 1 || cu[s + 1] - cu[s] <= array.shape(1), name, " has ", array.shape(1),
          " rows per sequence, sequence ", s, " needs ", cu[s + 1] - cu[s]);
    rows.begin.push_back(last == 2 ? data + static_cast<ptrdiff_t>(s) * array.strides(0) / kFloat
                                   : data + cu[s] * rows.row_stride);
  }
  return rows;
}

// Rows per sequence of a padded array, 0 for a packed one.
size_t padded_length(const py::object& object);

// Offsets of sequences: they start at 0 and never decrease.
std::vector<int32_t> offsets(const char* name, const py::object& object);

// An array (batch, heads, rows, cols) for results. A call fills the part that has queries and keys.
Strided<float> weights_output(const char* name, const py::object& object, size_t batch,
                              size_t heads, size_t rows, size_t cols);

// The masks and biases of one attention; each has the shape (batch, heads, num_queries, num_keys),
// with 1 where it broadcasts.
struct Masks {
  bool causal = false;
  py::object key_mask = py::none();
  py::object key_bias = py::none();
  py::object pair_mask = py::none();
  py::object pair_bias = py::none();

  AttentionPattern pattern(const std::vector<int32_t>& cu_q, const std::vector<int32_t>& cu_k,
                           size_t max_keys, size_t num_heads) const;
};

// The checked position for an attention and the positions that a call needs; null for None.
const Positions* checked_position(const Shared<Positions>& position,
                                  const MultiheadAttention& attention, size_t max_position);

}  // namespace simdformer::bindings

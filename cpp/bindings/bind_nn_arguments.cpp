// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/nn_arguments.h"

namespace simdformer::bindings {

using py::arg;

size_t padded_length(const py::object& object) {
  const auto array = py::array::ensure(object);
  return array.ndim() == 3 ? static_cast<size_t>(array.shape(1)) : 0;
}

std::vector<int32_t> offsets(const char* name, const py::object& object) {
  std::vector<int32_t> cu = id_vector(name, object);
  check(!cu.empty() && cu.front() == 0, name, " must start at 0");
  for (size_t i = 1; i < cu.size(); ++i) {
    check(cu[i] >= cu[i - 1], name, " must not decrease, got ", cu[i - 1], " then ", cu[i],
          " at index ", i);
  }
  return cu;
}

namespace {

// Masks and weights may be made for more rows and columns than there are behind the padding.
void check_covers(const char* name, const py::object& object, size_t rows, size_t cols) {
  if (object.is_none()) return;
  const auto array = py::array::ensure(object);
  check(array && array.ndim() == 4, name, " must have 4 dimensions");
  check(static_cast<size_t>(array.shape(2)) >= rows && static_cast<size_t>(array.shape(3)) >= cols,
        name, " has shape ", shape_of(array), ", the call needs ", rows, " rows and ", cols,
        " columns");
}

}  // namespace

Strided<float> weights_output(const char* name, const py::object& object, size_t batch,
                              size_t heads, size_t rows, size_t cols) {
  if (object.is_none()) return {};
  check_covers(name, object, rows, cols);
  const auto array = py::array::ensure(object);
  return strided_output(
      name, object,
      {batch, heads, static_cast<size_t>(array.shape(2)), static_cast<size_t>(array.shape(3))});
}

AttentionPattern Masks::pattern(const std::vector<int32_t>& cu_q, const std::vector<int32_t>& cu_k,
                                size_t max_keys, size_t num_heads) const {
  const size_t batch = cu_q.size() - 1;
  const Extents keys{batch, 1, 1, kAnyExtent};
  const Extents pairs{batch, num_heads, kAnyExtent, kAnyExtent};
  check_covers("key_mask", key_mask, 1, max_keys);
  check_covers("key_bias", key_bias, 1, max_keys);
  check_covers("pair_mask", pair_mask, longest_sequence(cu_q), max_keys);
  check_covers("pair_bias", pair_bias, longest_sequence(cu_q), max_keys);
  return {.cu_q = cu_q,
          .cu_k = cu_k,
          .causal = causal,
          .key_mask = optional_mask("key_mask", key_mask, keys),
          .key_bias = optional_strided<float>("key_bias", key_bias, keys),
          .pair_mask = optional_mask("pair_mask", pair_mask, pairs),
          .pair_bias = optional_strided<float>("pair_bias", pair_bias, pairs)};
}

PositionTables Positions::tables(size_t num_heads, size_t head_dim, size_t max_position) const {
  PositionTables t;
  if (relative) {
    const auto size = static_cast<size_t>(relative->shape(1));
    check(static_cast<size_t>(relative->shape(0)) == num_heads, "relative has ", relative->shape(0),
          " heads, attention has ", num_heads);
    check(relative_center + 1 >= max_position && relative_center + max_position <= size,
          "relative covers distances -", relative_center, " to ", size - relative_center - 1, ", ",
          max_position, " positions need more");
    t = {.relative = relative->data(), .relative_size = size, .relative_center = relative_center};
  }
  if (cos) {
    const auto pairs = static_cast<size_t>(cos->shape(1));
    check(sin && sin->shape(0) == cos->shape(0) && sin->shape(1) == cos->shape(1),
          "cos and sin must have one shape");
    check(2 * pairs <= head_dim, "cos has ", pairs, " pairs, head_dim is ", head_dim);
    check(static_cast<size_t>(cos->shape(0)) >= max_position, "cos covers ", cos->shape(0),
          " positions, the call needs ", max_position);
    t.cos = cos->data();
    t.sin = sin->data();
    t.rotary_dim = 2 * pairs;
    t.rotary_interleaved = interleaved;
  }
  return t;
}

namespace {

Positions make_positions(const py::object& relative, size_t relative_center, const py::object& cos,
                         const py::object& sin, bool interleaved) {
  Positions positions;
  if (!relative.is_none()) positions.relative = float_array("relative", relative, 2);
  positions.relative_center = relative_center;
  if (!cos.is_none()) {
    positions.cos = float_array("cos", cos, 2);
    positions.sin = float_array("sin", sin, 2);
  }
  positions.interleaved = interleaved;
  return positions;
}

}  // namespace

void bind_nn_arguments(py::module_& module) {
  py::class_<Masks>(module, "Masks")
      .def(py::init([](bool causal, py::object key_mask, py::object key_bias, py::object pair_mask,
                       py::object pair_bias) {
             return Masks{causal, key_mask, key_bias, pair_mask, pair_bias};
           }),
           py::kw_only(), arg("causal") = false, arg("key_mask") = py::none(),
           arg("key_bias") = py::none(), arg("pair_mask") = py::none(),
           arg("pair_bias") = py::none());

  py::class_<Positions>(module, "Positions")
      .def(py::init(&make_positions), py::kw_only(), arg("relative") = py::none(),
           arg("relative_center") = 0, arg("cos") = py::none(), arg("sin") = py::none(),
           arg("interleaved") = false);
}

}  // namespace simdformer::bindings

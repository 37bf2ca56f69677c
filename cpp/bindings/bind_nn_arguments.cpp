// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/nn_arguments.h"
#include "bindings/operands.h"

namespace simdformer::bindings {

using py::arg;

size_t padded_length(const py::object& object) {
  const auto array = py::array::ensure(object);
  return array.ndim() == 3 ? static_cast<size_t>(array.shape(1)) : 0;
}

std::vector<int32_t> offsets(const char* name, const py::object& object) {
  std::vector<int32_t> cu = id_vector(name, object);
  check(!cu.empty(), name, " must have at least one element, the leading 0");
  check(cu.front() == 0, name, " must start at 0, got ", cu.front());
  for (size_t i = 1; i < cu.size(); ++i) {
    check(cu[i] >= cu[i - 1], name, " must not decrease, got ", cu[i - 1], " then ", cu[i],
          " at index ", i);
  }
  return cu;
}

namespace {

// Masks and weights may have more rows and columns than there are without padding.
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

const Positions* checked_position(const Shared<Positions>& position,
                                  const MultiheadAttention& attention, size_t max_position) {
  const Positions* used = position ? position.get() : attention.position();
  check(!used || used->max_length == 0 || used->max_length >= max_position, "positions serve ",
        used ? used->max_length : 0, " tokens, the call needs ", max_position);
  if (position) attention.check_position(*position);
  return position.get();
}

namespace {

Shared<Positions> make_positions(const py::object& relative, size_t relative_center,
                                 const py::object& cos, const py::object& sin, bool interleaved,
                                 Shared<RelativeEmbeddings> embeddings) {
  auto p = std::make_shared<Positions>();
  if (!relative.is_none()) {
    const FloatArray bias = float_array("relative", relative, 2);
    p->relative = copied(bias);
    p->relative_heads = static_cast<size_t>(bias.shape(0));
    p->relative_center = relative_center;
    check(bias.size() > 0, "relative is empty");
  }
  if (!cos.is_none()) {
    const FloatArray c = float_array("cos", cos, 2);
    const FloatArray s = float_array("sin", sin, 2);
    check(s.shape(0) == c.shape(0) && s.shape(1) == c.shape(1), "cos has shape ", shape_of(c),
          ", sin ", shape_of(s));
    check(c.size() > 0, "cos is empty");
    p->cos = copied(c);
    p->sin = copied(s);
    p->pairs = static_cast<size_t>(c.shape(1));
  }
  p->interleaved = interleaved;
  p->embeddings = embeddings;
  set_lengths(*p);
  return p;
}

// A table (heads or 1, table rows, features) as one Linear per head.
std::vector<Linear> tables(const char* name, const py::object& table) {
  if (table.is_none()) return {};
  const FloatArray array = float_array(name, table, 3);
  return projections(name, table, py::none(), static_cast<size_t>(array.shape(0)),
                     static_cast<size_t>(array.shape(2)));
}

Shared<RelativeEmbeddings> make_embeddings(const py::object& rows, size_t center,
                                           const py::object& query_table,
                                           const py::object& key_table,
                                           const py::object& value_table,
                                           const py::object& content_bias,
                                           const py::object& position_bias) {
  auto e = std::make_shared<RelativeEmbeddings>();
  e->query_tables = tables("query_table", query_table);
  e->key_tables = tables("key_table", key_table);
  e->value_tables = tables("value_table", value_table);
  if (!content_bias.is_none()) {
    e->content_bias = copied(float_array("content_bias", content_bias, 2));
  }
  if (!position_bias.is_none()) {
    e->position_bias = copied(float_array("position_bias", position_bias, 2));
  }
  e->rows = id_vector("rows", rows);
  e->center = center;
  check_rows(*e);
  return e;
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

  py::class_<Positions, Shared<Positions>>(module, "Positions")
      .def(py::init(&make_positions), py::kw_only(), arg("relative") = py::none(),
           arg("relative_center") = 0, arg("cos") = py::none(), arg("sin") = py::none(),
           arg("interleaved") = false, arg("embeddings") = py::none())
      .def_readonly("max_length", &Positions::max_length);

  py::class_<RelativeEmbeddings, Shared<RelativeEmbeddings>>(module, "RelativeEmbeddings")
      .def(py::init(&make_embeddings), py::kw_only(), arg("rows"), arg("center"),
           arg("query_table") = py::none(), arg("key_table") = py::none(),
           arg("value_table") = py::none(), arg("content_bias") = py::none(),
           arg("position_bias") = py::none());
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// Positions: tables of sines and cosines, rotation by them, relative embeddings.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/operands.h"
#include "layers/attention/relative_scores.h"
#include "layers/attention/row_blocks.h"
#include "layers/parts/positions.h"

namespace simdformer::bindings {
namespace {

using py::arg;
using DoubleArray = py::array_t<double, py::array::c_style>;
using IndexArray = py::array_t<int32_t, py::array::c_style>;

// A writable (rows, cols) view with any strides.
TableView table_view(const char* name, py::array& table, size_t rows, size_t cols) {
  check(py::isinstance<py::array_t<float, 0>>(table) && table.ndim() == 2 &&
            static_cast<size_t>(table.shape(0)) == rows &&
            static_cast<size_t>(table.shape(1)) == cols,
        name, " must be float32 of shape (", rows, ", ", cols, "), got ", shape_of(table));
  constexpr auto kSize = static_cast<py::ssize_t>(sizeof(float));
  return {static_cast<float*>(table.mutable_data()), table.strides(0) / kSize,
          table.strides(1) / kSize};
}

void sin_cos(const DoubleArray& positions, const DoubleArray& frequencies, double scale,
             py::array sines, py::array cosines) {
  const std::span<const double> p(positions.data(), static_cast<size_t>(positions.size()));
  const std::span<const double> f(frequencies.data(), static_cast<size_t>(frequencies.size()));
  const TableView s = table_view("sines", sines, p.size(), f.size());
  const TableView c = table_view("cosines", cosines, p.size(), f.size());
  without_gil([&](const StopCheck& stop_check) {
    sin_cos_table(p, f, scale, s, c, threads_of_call(0), stop_check);
  });
}

void rotary(const py::object& x_object, const py::object& cos_object, const py::object& sin_object,
            bool interleaved, const py::object& out_object) {
  const Operand x = operand("x", x_object);
  const auto pairs = static_cast<size_t>(py::array::ensure(cos_object).shape(3));
  check(2 * pairs <= x.cols, "cos has ", pairs, " columns, x has ", x.cols);
  const Extents table{x.batches, x.heads, x.num_rows, pairs};
  const Strided<const float> cos = strided<float>("cos", cos_object, table);
  const Strided<const float> sin = strided<float>("sin", sin_object, table);
  check(cos.row_stride == sin.row_stride, "cos and sin have different strides");
  const Strided<float> out =
      strided_output("out", out_object, {x.batches, x.heads, x.num_rows, x.cols});
  const Kernels& kernels = active_kernels();
  without_gil([&](const StopCheck& stop_check) {
    for_row_blocks(x, threads_of_call(0), stop_check,
                   [&](size_t batch, size_t head, size_t first, size_t rows) {
                     kernels.rotary({.rows = rows,
                                     .cols = x.cols,
                                     .pairs = pairs,
                                     .interleaved = interleaved,
                                     .x = x.rows.at(batch, head, first),
                                     .ldx = static_cast<size_t>(x.rows.row_stride),
                                     .cos = cos.at(batch, head, first),
                                     .sin = sin.at(batch, head, first),
                                     .ld_table = static_cast<size_t>(cos.row_stride),
                                     .y = out.at(batch, head, first),
                                     .ldy = static_cast<size_t>(out.row_stride)});
                   });
  });
}

RelativeIndex relative_index(const IndexArray& index, size_t rows, size_t cols, size_t size) {
  check(index.ndim() == 2 && static_cast<size_t>(index.shape(0)) == rows &&
            static_cast<size_t>(index.shape(1)) == cols,
        "index must have shape (", rows, ", ", cols, "), got ", shape_of(index));
  for (py::ssize_t i = 0; i < index.size(); ++i) {
    const int32_t at = index.data()[i];
    check(at >= 0 && static_cast<size_t>(at) < size, "index holds ", at, ", outside [0, ", size,
          ")");
  }
  return {index.data(), rows, cols};
}

void relative_scores(const py::object& x_object, const py::object& table, const IndexArray& index,
                     float scale, bool by_columns, const py::object& out_object) {
  const Operand x = operand("x", x_object);
  const std::vector<Linear> tables = projections("table", table, py::none(), x.heads, x.cols);
  check(!tables.empty(), "table must not be None");
  const auto cols = static_cast<size_t>(index.ndim() == 2 ? index.shape(1) : 0);
  const RelativeIndex at = relative_index(index, x.num_rows, cols, tables[0].out_features());
  const Extents shape = by_columns ? Extents{x.batches, x.heads, cols, x.num_rows}
                                   : Extents{x.batches, x.heads, x.num_rows, cols};
  const Strided<float> out = strided_output("out", out_object, shape);
  without_gil([&](const StopCheck& stop_check) {
    add_relative_scores(x, tables, at, scale, by_columns, out, threads_of_call(0), stop_check);
  });
}

void relative_values(const py::object& weights_object, const py::object& table,
                     const IndexArray& index, const py::object& out_object) {
  const Operand weights = operand("weights", weights_object);
  const auto table_rows = static_cast<size_t>(py::array::ensure(table).shape(2));
  const std::vector<Linear> tables =
      projections("table", table, py::none(), weights.heads, table_rows);
  const RelativeIndex at = relative_index(index, weights.num_rows, weights.cols, table_rows);
  const Strided<float> out = strided_output(
      "out", out_object,
      {weights.batches, weights.heads, weights.num_rows, tables.at(0).out_features()});
  without_gil([&](const StopCheck& stop_check) {
    add_relative_values(weights, tables, at, out, threads_of_call(0), stop_check);
  });
}

}  // namespace

void bind_positions(py::module_& module) {
  module.def("sin_cos", &sin_cos, arg("positions"), arg("frequencies"), arg("scale"), arg("sines"),
             arg("cosines"));
  module.def("rotary", &rotary, arg("x"), arg("cos"), arg("sin"), arg("interleaved"), arg("out"));
  module.def("relative_scores", &relative_scores, arg("x"), arg("table"), arg("index"),
             arg("scale"), arg("by_columns"), arg("out"));
  module.def("relative_values", &relative_values, arg("weights"), arg("table"), arg("index"),
             arg("out"));
}

}  // namespace simdformer::bindings

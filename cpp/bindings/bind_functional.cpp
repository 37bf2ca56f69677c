// SPDX-License-Identifier: Apache-2.0
// Functions of rows: norms, activations, softmax, linear, embedding. simdformer.functional converts
// its arguments to rank 4 (batch, heads, rows, cols); the checks here keep the kernels within the
// arrays.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/operands.h"
#include "layers/attention/row_blocks.h"

namespace simdformer::bindings {
namespace {

using py::arg;

Extents extents(const Operand& x) { return {x.batches, x.heads, x.num_rows, x.cols}; }

// y.row(i) = kernel(x.row(i)) for blocks of rows. x and y must have the same number of rows.
template <typename Kernel>
void map_rows(const Operand& x, const Strided<float>& y, Kernel&& kernel) {
  without_gil([&](const StopCheck& stop_check) {
    for_row_blocks(x, threads_of_call(0), stop_check,
                   [&](size_t batch, size_t head, size_t first, size_t rows) {
                     kernel(rows, x.rows.at(batch, head, first),
                            static_cast<size_t>(x.rows.row_stride), y.at(batch, head, first),
                            static_cast<size_t>(y.row_stride));
                   });
  });
}

void layer_norm(const py::object& x_object, const py::object& weight_object,
                const py::object& bias_object, float eps, const py::object& out) {
  const Operand x = operand("x", x_object);
  const OptionalVector weight("weight", weight_object, x.cols);
  const OptionalVector bias("bias", bias_object, x.cols);
  check(weight.data() != nullptr, "weight must not be None");
  const Kernels& kernels = active_kernels();
  map_rows(x, strided_output("out", out, extents(x)),
           [&](size_t rows, const float* px, size_t ldx, float* y, size_t ldy) {
             kernels.layer_norm({.rows = rows,
                                 .cols = x.cols,
                                 .x = px,
                                 .ldx = ldx,
                                 .weight = weight.data(),
                                 .bias = bias.data(),
                                 .eps = eps,
                                 .y = y,
                                 .ldy = ldy});
           });
}

void rms_norm(const py::object& x_object, const py::object& weight_object, float eps,
              const py::object& out) {
  const Operand x = operand("x", x_object);
  const OptionalVector weight("weight", weight_object, x.cols);
  check(weight.data() != nullptr, "weight must not be None");
  const Kernels& kernels = active_kernels();
  map_rows(x, strided_output("out", out, extents(x)),
           [&](size_t rows, const float* px, size_t ldx, float* y, size_t ldy) {
             kernels.rms_norm({.rows = rows,
                               .cols = x.cols,
                               .x = px,
                               .ldx = ldx,
                               .weight = weight.data(),
                               .eps = eps,
                               .y = y,
                               .ldy = ldy});
           });
}

void norm_columns(const py::object& x_object, const py::object& mean_object,
                  const py::object& scale_object, const py::object& shift_object,
                  const py::object& out) {
  const Operand x = operand("x", x_object);
  const OptionalVector mean("mean", mean_object, x.cols);
  const OptionalVector scale("scale", scale_object, x.cols);
  const OptionalVector shift("shift", shift_object, x.cols);
  check(mean.data() && scale.data() && shift.data(), "mean, scale and shift must not be None");
  const Kernels& kernels = active_kernels();
  map_rows(x, strided_output("out", out, extents(x)),
           [&](size_t rows, const float* px, size_t ldx, float* y, size_t ldy) {
             kernels.norm_columns({.rows = rows,
                                   .cols = x.cols,
                                   .x = px,
                                   .ldx = ldx,
                                   .mean = mean.data(),
                                   .scale = scale.data(),
                                   .shift = shift.data(),
                                   .y = y,
                                   .ldy = ldy});
           });
}

std::pair<FloatArray, FloatArray> column_moments(const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 2);
  const ConstMatrix rows = matrix(x);
  check(rows.rows > 0, "x must have at least one row");
  FloatArray mean(x.shape(1));
  FloatArray variance(x.shape(1));
  const Kernels& kernels = active_kernels();
  float* means = mean.mutable_data();
  float* variances = variance.mutable_data();
  without_gil([&](const StopCheck& stop_check) {
    // Threads share columns: the sum of a column is never split. 64 columns are whole vectors at
    // every level.
    constexpr size_t kColumns = 64;
    const int threads = rows.rows * rows.cols < kSerialElements ? 1 : threads_of_call(0);
    run_team(threads, stop_check, [&](Team& team) {
      team.for_each((rows.cols + kColumns - 1) / kColumns, [&](size_t block) {
        const size_t j = block * kColumns;
        kernels.column_moments(rows.rows, std::min(kColumns, rows.cols - j), rows.data + j,
                               rows.stride, means + j, variances + j);
      });
    });
  });
  return {mean, variance};
}

void softmax(const py::object& x_object, const py::object& out) {
  const Operand x = operand("x", x_object);
  const Kernels& kernels = active_kernels();
  map_rows(x, strided_output("out", out, extents(x)),
           [&](size_t rows, const float* px, size_t ldx, float* y, size_t ldy) {
             for (size_t i = 0; i < rows; ++i)
               kernels.softmax(1, x.cols, px + i * ldx, y + i * ldy);
           });
}

void activate(const std::string& name, const py::object& x_object, const py::object& out) {
  const Operand x = operand("x", x_object);
  const Activation kind = by_name("activation", name, kActivations);
  const Kernels& kernels = active_kernels();
  map_rows(x, strided_output("out", out, extents(x)),
           [&](size_t rows, const float* px, size_t ldx, float* y, size_t ldy) {
             for (size_t i = 0; i < rows; ++i) {
               kernels.activation(kind, x.cols, px + i * ldx, y + i * ldy);
             }
           });
}

void gated(const std::string& name, const py::object& gate_object, const py::object& x_object,
           const py::object& out_object) {
  const Operand gate = operand("gate", gate_object);
  const Strided<const float> x = strided<float>("x", x_object, extents(gate));
  const Strided<float> out = strided_output("out", out_object, extents(gate));
  const Activation kind = by_name("activation", name, kActivations);
  const Kernels& kernels = active_kernels();
  without_gil([&](const StopCheck& stop_check) {
    for_row_blocks(gate, threads_of_call(0), stop_check,
                   [&](size_t batch, size_t head, size_t first, size_t rows) {
                     for (size_t i = first; i < first + rows; ++i) {
                       kernels.gated(kind, gate.cols, gate.rows.at(batch, head, i),
                                     x.at(batch, head, i), out.at(batch, head, i));
                     }
                   });
  });
}

void linear(const py::object& x_object, const py::object& weight_object,
            const py::object& bias_object, const py::object& out_object) {
  const FloatArray x = float_array("x", x_object, 2);
  const FloatArray weight = float_array("weight", weight_object, 2);
  const ConstMatrix w = matrix(weight);
  check(matrix(x).cols == w.cols, "weight has ", w.cols, " columns, x has ", matrix(x).cols);
  const OptionalVector bias("bias", bias_object, w.rows);
  const Strided<float> out = strided_output("out", out_object, {1, 1, matrix(x).rows, w.rows});
  const Matrix y{out.data, matrix(x).rows, w.rows, static_cast<size_t>(out.row_stride)};
  without_gil([&](const StopCheck& stop_check) {
    const Linear layer(w, bias.data());
    const int threads = y.rows * w.rows * w.cols < (size_t{1} << 20) ? 1 : threads_of_call(0);
    run_team(threads, stop_check, [&](Team& team) { layer.forward(team, matrix(x), y); });
  });
}

void embedding(const py::object& table_object, const py::object& ids_object,
               const py::object& out_object) {
  const FloatArray table = float_array("weight", table_object, 2);
  const std::vector<int32_t> ids = id_vector("input", ids_object);
  const auto rows = static_cast<int64_t>(table.shape(0));
  for (const int32_t id : ids) {
    if (id >= 0 && id < rows) continue;
    throw py::index_error(concat("input holds ", id, ", outside [0, ", rows, ")"));
  }
  const size_t cols = matrix(table).cols;
  const Strided<float> out = strided_output("out", out_object, {1, 1, ids.size(), cols});
  const Kernels& kernels = active_kernels();
  const Operand extent{{}, 1, 1, ids.size(), cols};
  without_gil([&](const StopCheck& stop_check) {
    for_row_blocks(extent, threads_of_call(0), stop_check,
                   [&](size_t, size_t, size_t first, size_t count) {
                     kernels.embedding_sum({.rows = count,
                                            .cols = cols,
                                            .word = {.float32 = table.data()},
                                            .position = nullptr,
                                            .token_type = nullptr,
                                            .input_ids = ids.data() + first,
                                            .position_ids = nullptr,
                                            .token_type_ids = nullptr,
                                            .y = out.at(0, 0, first),
                                            .ldy = static_cast<size_t>(out.row_stride)});
                   });
  });
}

}  // namespace

void bind_functional(py::module_& module) {
  module.def("layer_norm", &layer_norm, arg("x"), arg("weight"), arg("bias"), arg("eps"),
             arg("out"));
  module.def("rms_norm", &rms_norm, arg("x"), arg("weight"), arg("eps"), arg("out"));
  module.def("norm_columns", &norm_columns, arg("x"), arg("mean"), arg("scale"), arg("shift"),
             arg("out"));
  module.def("column_moments", &column_moments, arg("x"));
  module.def("softmax", &softmax, arg("x"), arg("out"));
  module.def("activate", &activate, arg("name"), arg("x"), arg("out"));
  module.def("gated", &gated, arg("name"), arg("gate"), arg("x"), arg("out"));
  module.def("linear", &linear, arg("x"), arg("weight"), arg("bias"), arg("out"));
  module.def("embedding", &embedding, arg("weight"), arg("input"), arg("out"));
}

}  // namespace simdformer::bindings

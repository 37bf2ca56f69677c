// SPDX-License-Identifier: Apache-2.0
// Norms and linear maps of simdformer.nn, on rows.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/numpy.h"
#include "layers/parts/linear.h"
#include "layers/parts/norm.h"

namespace simdformer::bindings {
namespace {

using py::arg;

template <typename T>
using Shared = std::shared_ptr<T>;

std::span<const float> vector_of(const FloatArray& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

// Applies a layer to the rows of x: (rows, features).
template <typename Layer>
FloatArray rows_forward(const Layer& layer, const py::object& x, size_t in, size_t out_features,
                        int num_threads) {
  num_threads = threads_of_call(num_threads);
  const FloatArray array = float_array("x", x, 2);
  const ConstMatrix rows = matrix(array);
  check(rows.cols == in, "x has ", rows.cols, " features, expected ", in);
  FloatArray out = empty_matrix(rows.rows, out_features);
  const Matrix result = mutable_matrix(out);
  without_gil([&](const StopCheck& stop_check) {
    run_team(num_threads, stop_check, [&](Team& team) { layer.forward(team, rows, result); });
  });
  return out;
}

FloatArray norm_forward(const Norm& self, const py::object& x, int num_threads) {
  return rows_forward(self, x, self.size(), self.size(), num_threads);
}

FloatArray linear_forward(const Linear& linear, const py::object& x, int num_threads) {
  return rows_forward(linear, x, linear.in_features(), linear.out_features(), num_threads);
}

void bind_norms(py::module_& module) {
  py::class_<Norm, Shared<Norm>>(module, "Norm")
      .def_static(
          "layer", [](Shared<LayerNorm> norm) { return make_layer_norm(norm); },
          arg("norm").none(false))
      .def_static(
          "rms",
          [](const py::object& weight, float eps) {
            return make_rms_norm(vector_of(float_array("weight", weight, 1)), eps);
          },
          arg("weight"), py::kw_only(), arg("eps"))
      .def_static(
          "batch",
          [](const py::object& weight, const py::object& bias, const py::object& running_mean,
             const py::object& running_var, float eps) {
            const FloatArray w = float_array("weight", weight, 1);
            const FloatArray b = float_array("bias", bias, 1);
            const FloatArray mean = float_array("running_mean", running_mean, 1);
            const FloatArray var = float_array("running_var", running_var, 1);
            return make_batch_norm(vector_of(w), vector_of(b), vector_of(mean), vector_of(var),
                                   eps);
          },
          arg("weight"), arg("bias"), arg("running_mean"), arg("running_var"), py::kw_only(),
          arg("eps"))
      .def("forward", &norm_forward, arg("x"), py::kw_only(), arg("num_threads") = 0);
}

}  // namespace

void bind_nn(py::module_& module) {
  bind_norms(module);
  module.def("linear_forward", &linear_forward, arg("linear"), arg("x"), py::kw_only(),
             arg("num_threads") = 0);
  bind_nn_arguments(module);
  bind_nn_attention(module);
  bind_stack(module);
  bind_pooled(module);
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// int8: quantizing weights, and the int8 kernels as NumPy functions.
#include "bindings/bindings.h"
#include "bindings/gemm_epilogue.h"
#include "bindings/kernel_table.h"
#include "bindings/numpy.h"
#include "bindings/s8_arrays.h"

namespace simdformer::bindings {
namespace {

using py::arg;

py::ssize_t signed_size(size_t size) { return static_cast<py::ssize_t>(size); }

py::tuple quantize_weight_array(const py::object& weight_object, const py::object& outliers,
                                bool rotated) {
  const FloatArray weight = float_array("weight", weight_object, 2);
  const std::vector<int32_t> columns =
      outliers.is_none() ? std::vector<int32_t>() : id_vector("outliers", outliers);
  const ConstMatrix w = matrix(weight);
  Int8Array values({signed_size(w.rows), signed_size(w.cols)});
  FloatArray scale = empty_matrix(w.rows, num_s8_groups(w.cols));
  quantize_weight(w, columns, rotated, values.mutable_data(), scale.mutable_data());
  return py::make_tuple(values, scale);
}

py::tuple quantize_rows(const KernelTable& self, const py::object& x_object, bool rotated) {
  const FloatArray x = float_array("x", x_object, 2);
  const ConstMatrix rows = matrix(x);
  const size_t groups = num_s8_groups(rows.cols);
  py::array_t<uint8_t> q({signed_size(groups), signed_size(rows.rows), signed_size(kS8Group)});
  FloatArray scale = empty_matrix(groups, rows.rows);
  FloatArray minimum = empty_matrix(groups, rows.rows);
  self.kernels.quantize_rows({.rows = rows.rows,
                              .cols = rows.cols,
                              .x = rows.data,
                              .ldx = rows.stride,
                              .rotated = rotated,
                              .capacity = rows.rows,
                              .q = q.mutable_data(),
                              .scale = scale.mutable_data(),
                              .minimum = minimum.mutable_data()});
  // Converted to (rows, groups * kS8Group) and (rows, groups).
  const py::object codes = q.attr("swapaxes")(0, 1).attr("reshape")(rows.rows, groups * kS8Group);
  return py::make_tuple(codes, scale.attr("T").attr("copy")(), minimum.attr("T").attr("copy")());
}

FloatArray gemm_s8(const KernelTable& self, const py::object& a_object, const py::object& values,
                   const py::object& scale, const py::object& bias, const py::object& outliers,
                   const py::object& outlier_weight, bool rotated, const std::string& activation,
                   const py::object& residual, const py::object& norm_weight,
                   const py::object& norm_bias, float eps) {
  const FloatArray a = float_array("a", a_object, 2);
  const S8Arrays weight(values, scale, outliers, outlier_weight, rotated);
  check(matrix(a).cols == weight.cols(), "values has shape ", shape_of(weight.values),
        ", a has shape ", shape_of(a), ": their columns differ");
  const size_t n = weight.rows();
  const GemmEpilogue epilogue(matrix(a).rows, n, bias, activation, residual, norm_weight, norm_bias,
                              eps);
  const PackedS8 packed(self.kernels, weight.view());
  FloatArray out = empty_matrix(matrix(a).rows, n);
  GemmArgs args = self.gemm_args(matrix(a), n, Buffer<float>(), mutable_matrix(out));
  epilogue.apply(args);
  self.kernels.gemm_s8(args, packed.view());
  return out;
}

}  // namespace

void bind_quantized(py::module_& module, KernelTableClass& table) {
  module.def("s8_group", [] { return kS8Group; });
  module.def("s8_pair_limit", [] { return kS8PairLimit; });
  module.def("s8_rotates", [] { return active_kernels().s8_rotates; });
  module.def("quantize_weight", &quantize_weight_array, arg("weight"), arg("outliers") = py::none(),
             arg("rotated") = false);
  table.def("quantize_rows", &quantize_rows, arg("x"), arg("rotated") = false)
      .def("gemm_s8", &gemm_s8, arg("a"), arg("values"), arg("scale"), arg("bias") = py::none(),
           arg("outliers") = py::none(), arg("outlier_weight") = py::none(), arg("rotated") = false,
           py::kw_only(), arg("activation") = "identity", arg("residual") = py::none(),
           arg("norm_weight") = py::none(), arg("norm_bias") = py::none(), arg("eps") = 1e-5f);
}

}  // namespace simdformer::bindings

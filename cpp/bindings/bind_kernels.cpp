// SPDX-License-Identifier: Apache-2.0
// Single kernels as NumPy functions: arguments are checked, then one kernel runs on one thread.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/gemm_epilogue.h"
#include "bindings/kernel_table.h"
#include "bindings/names.h"
#include "bindings/numpy.h"
#include "layers/parts/linear.h"
#include "layers/parts/packed_bf16.h"

namespace simdformer::bindings {
namespace {

using py::arg;

template <Storage storage>
FloatArray gemm(const KernelTable& self, const py::object& a_object,
                const py::object& weight_object, const py::object& bias,
                const std::string& activation, const py::object& residual,
                const py::object& norm_weight, const py::object& norm_bias, float eps) {
  const FloatArray a = float_array("a", a_object, 2);
  const FloatArray weight = float_array("weight", weight_object, 2);
  check(a.shape(1) == weight.shape(1), "weight has shape ", shape_of(weight), ", a has shape ",
        shape_of(a), ": their columns differ");
  const size_t n = matrix(weight).rows;
  const GemmEpilogue epilogue(matrix(a).rows, n, bias, activation, residual, norm_weight, norm_bias,
                              eps);
  FloatArray out = empty_matrix(matrix(a).rows, n);
  const bool narrow = storage == Storage::kBfloat16;
  const Buffer<float> packed = narrow ? Buffer<float>() : self.pack(matrix(weight));
  GemmArgs args = self.gemm_args(matrix(a), n, packed, mutable_matrix(out));
  epilogue.apply(args);
  if (narrow) {
    PackedBf16(self.kernels, matrix(weight)).gemm(self.kernels, args);
  } else {
    self.kernels.gemm(args);
  }
  return out;
}

float largest_magnitude(const KernelTable& self, const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 2);
  return self.kernels.largest_magnitude(matrix(x).rows, matrix(x).cols, x.data(), matrix(x).stride);
}

FloatArray layer_norm(const KernelTable& self, const py::object& x_object,
                      const py::object& weight_object, const py::object& bias_object, float eps) {
  const FloatArray x = float_array("x", x_object, 2);
  const ConstMatrix rows = matrix(x);
  const OptionalVector weight("weight", weight_object, rows.cols);
  check(weight.data() != nullptr, "weight must not be None");
  const OptionalVector bias("bias", bias_object, rows.cols);
  FloatArray out = empty_matrix(rows.rows, rows.cols);
  self.kernels.layer_norm({.rows = rows.rows,
                           .cols = rows.cols,
                           .x = rows.data,
                           .ldx = rows.stride,
                           .weight = weight.data(),
                           .bias = bias.data(),
                           .eps = eps,
                           .y = out.mutable_data(),
                           .ldy = rows.cols});
  return out;
}

FloatArray activation(const KernelTable& self, const std::string& name,
                      const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 1);
  FloatArray out(x.size());
  self.kernels.activation(by_name("activation", name, kActivations), static_cast<size_t>(x.size()),
                          x.data(), out.mutable_data());
  return out;
}

// A table and the ids that look up its rows, or neither.
struct Lookup {
  FloatArray table;
  std::vector<int32_t> ids;

  Lookup(const char* name, const py::object& table_object, const py::object& ids_object) {
    if (table_object.is_none()) return;
    table = float_array(name, table_object, 2);
    if (ids_object.is_none()) return;
    ids = id_vector(concat(name, " ids").c_str(), ids_object);
    const auto rows = static_cast<int64_t>(table.shape(0));
    for (const int32_t id : ids) {
      if (id >= 0 && id < rows) continue;
      throw py::index_error(concat(name, " id ", id, " is outside [0, ", rows, ")"));
    }
  }
  const float* data() const { return table.ndim() == 2 ? table.data() : nullptr; }
};

FloatArray embedding_sum(const KernelTable& self, const py::object& word_object,
                         const py::object& position_object, const py::object& type_object,
                         const py::object& input_ids, const py::object& position_ids,
                         const py::object& token_type_ids) {
  const Lookup word("word", word_object, input_ids);
  const Lookup position("position", position_object, position_ids);
  const Lookup token_type("token_type", type_object, token_type_ids);
  const size_t rows = word.ids.size();
  const size_t cols = matrix(word.table).cols;
  const bool all_type_zero = token_type_ids.is_none();
  check(!all_type_zero || !token_type.data() || token_type.table.shape(0) > 0,
        "token_type is empty");
  for (const Lookup* part : {&position, &token_type}) {
    if (!part->data()) continue;
    check(matrix(part->table).cols == cols, "a table has ", matrix(part->table).cols,
          " columns, word has ", cols);
    check(part->ids.size() == rows || (part == &token_type && all_type_zero), part->ids.size(),
          " ids for ", rows, " input_ids");
  }
  FloatArray out = empty_matrix(rows, cols);
  self.kernels.embedding_sum({.rows = rows,
                              .cols = cols,
                              .word = {.float32 = word.data()},
                              .position = position.data(),
                              .token_type = token_type.data(),
                              .input_ids = word.ids.data(),
                              .position_ids = position.ids.data(),
                              .token_type_ids = all_type_zero ? nullptr : token_type.ids.data(),
                              .y = out.mutable_data(),
                              .ldy = cols});
  return out;
}

FloatArray pool(const KernelTable& self, const std::string& mode, const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 2);
  check(x.shape(0) > 0, "x must have at least one row");
  FloatArray out(x.shape(1));
  self.kernels.pool(by_name("pooling mode", mode, kPoolings), matrix(x).rows, matrix(x).cols,
                    x.data(), matrix(x).stride, 0, out.mutable_data());
  return out;
}

// y: an array; the result is combined with it in place.
void fold_rows_into(const KernelTable& self, const std::string& fold, const py::object& x_object,
                    const py::object& bias_object, FloatArray y) {
  const FloatArray x = float_array("x", x_object, 2);
  const OptionalVector bias("bias", bias_object, matrix(x).cols);
  check(y.ndim() == 1 && y.shape(0) == x.shape(1), "y must have shape (", x.shape(1), ",), got ",
        shape_of(y));
  self.kernels.fold_rows_into({.fold = by_name("fold", fold, kFolds),
                               .rows = matrix(x).rows,
                               .cols = matrix(x).cols,
                               .x = x.data(),
                               .ldx = matrix(x).stride,
                               .bias = bias.data(),
                               .y = y.mutable_data()});
}

FloatArray l2_normalize(const KernelTable& self, const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 2);
  FloatArray out = empty_matrix(matrix(x).rows, matrix(x).cols);
  self.kernels.l2_normalize(matrix(x).rows, matrix(x).cols, 1e-12f, x.data(), out.mutable_data());
  return out;
}

// weights: None, or an array for the weights.
FloatArray attend(const KernelTable& self, AttentionKernel kernel, const py::object& q_object,
                  const py::object& k_object, const py::object& v_object, float softmax_scale,
                  const py::object& bias, std::optional<FloatArray> weights, float q_magnitude) {
  const FloatArray q = float_array("q", q_object, 2);
  const FloatArray k = float_array("k", k_object, 2);
  const FloatArray v = float_array("v", v_object, 2);
  check(q.shape(1) == k.shape(1), "k has head_dim ", k.shape(1), ", q has ", q.shape(1));
  check(k.shape(0) == v.shape(0), "v has ", v.shape(0), " rows, k has ", k.shape(0));
  check(softmax_scale > 0, "softmax_scale must be positive, got ", softmax_scale);
  const size_t distances = matrix(q).rows + matrix(k).rows;
  const OptionalVector relative_bias("relative_bias", bias, distances ? distances - 1 : 0);
  FloatArray out = empty_matrix(matrix(q).rows, matrix(v).cols);
  Buffer<float> scratch = self.attention_scratch(matrix(k), matrix(v));
  AttentionArgs args = self.attention_args(matrix(q), matrix(k), matrix(v), softmax_scale, scratch,
                                           mutable_matrix(out));
  args.relative_bias = relative_bias.data();
  args.q_magnitude = q_magnitude;
  if (weights) {
    check(
        weights->ndim() == 2 && weights->shape(0) == q.shape(0) && weights->shape(1) == k.shape(0),
        "weights must have shape (", q.shape(0), ", ", k.shape(0), "), got ", shape_of(*weights));
    args.weights = weights->mutable_data();
    args.ld_weights = matrix(k).rows;
  }
  kernel(args);
  return out;
}

// The code that kernels.inc generates for a kernel: one function for all kernels of a form.
void bind_form(KernelTableClass& table, const char* name, AttentionKernel Kernels::* kernel) {
  table.def(
      name,
      [kernel](const KernelTable& self, const py::object& q, const py::object& k,
               const py::object& v, float softmax_scale, const py::object& relative_bias,
               const std::optional<FloatArray>& weights, float q_magnitude) {
        return attend(self, self.kernels.*kernel, q, k, v, softmax_scale, relative_bias, weights,
                      q_magnitude);
      },
      arg("q"), arg("k"), arg("v"), py::kw_only(), arg("softmax_scale"),
      arg("relative_bias") = py::none(), arg("weights").noconvert() = py::none(),
      arg("q_magnitude") = 0.0f);
}

void bind_form(KernelTableClass& table, const char* name, RowKernel Kernels::* kernel) {
  table.def(
      name,
      [kernel](const KernelTable& self, const py::object& x_object) {
        const FloatArray x = float_array("x", x_object, 2);
        FloatArray out = empty_matrix(matrix(x).rows, matrix(x).cols);
        (self.kernels.*kernel)(matrix(x).rows, matrix(x).cols, x.data(), out.mutable_data());
        return out;
      },
      arg("x"));
}

void bind_form(KernelTableClass& table, const char* name, ElementKernel Kernels::* kernel) {
  table.def(
      name,
      [kernel](const KernelTable& self, const py::object& x_object) {
        const FloatArray x = float_array("x", x_object, 1);
        FloatArray out(x.size());
        (self.kernels.*kernel)(static_cast<size_t>(x.size()), x.data(), out.mutable_data());
        return out;
      },
      arg("x"));
}

// Kernels with a form of their own are bound by name below, if tests call them.
template <typename Other>
void bind_form(KernelTableClass&, const char*, Other Kernels::*) {}

template <typename Entries>
std::vector<std::string> names_of(const Entries& entries) {
  std::vector<std::string> names;
  for (const auto& [name, value] : entries) names.emplace_back(name);
  return names;
}

}  // namespace

void bind_kernels(py::module_& module) {
  module.def("activations", [] { return names_of(kActivations); });
  module.def("pooling_modes", [] { return names_of(kPoolings); });

  KernelTableClass table(module, "KernelTable");
  table.def(py::init<const std::string&>(), arg("isa"))
      .def_property_readonly("isa", [](const KernelTable& self) { return self.kernels.isa; })
      .def_property_readonly("lanes", [](const KernelTable& self) { return self.kernels.lanes; })
      .def_property_readonly("gemm_tile",
                             [](const KernelTable& self) {
                               return std::pair(self.kernels.gemm_mr, self.kernels.gemm_nr);
                             })
      .def_property_readonly(
          "has_bf16_tiles",
          [](const KernelTable& self) { return self.kernels.bf16_tiles.gemm != nullptr; })
      .def("gemm", &gemm<Storage::kFloat32>, arg("a"), arg("weight"), arg("bias") = py::none(),
           py::kw_only(), arg("activation") = "identity", arg("residual") = py::none(),
           arg("norm_weight") = py::none(), arg("norm_bias") = py::none(), arg("eps") = 1e-5f)
      .def("gemm_bf16", &gemm<Storage::kBfloat16>, arg("a"), arg("weight"),
           arg("bias") = py::none(), py::kw_only(), arg("activation") = "identity",
           arg("residual") = py::none(), arg("norm_weight") = py::none(),
           arg("norm_bias") = py::none(), arg("eps") = 1e-5f)
      .def("largest_magnitude", &largest_magnitude, arg("x"))
      .def("layer_norm", &layer_norm, arg("x"), arg("weight"), arg("bias") = py::none(),
           py::kw_only(), arg("eps") = 1e-5f)
      .def("activation", &activation, arg("name"), arg("x"))
      .def("embedding_sum", &embedding_sum, arg("word"), arg("position"), arg("token_type"),
           arg("input_ids"), arg("position_ids"), arg("token_type_ids"))
      .def("pool", &pool, arg("mode"), arg("x"))
      .def("fold_rows_into", &fold_rows_into, arg("fold"), arg("x"), arg("bias"),
           arg("y").noconvert())
      .def("l2_normalize", &l2_normalize, arg("x"));
#define SIMDFORMER_KERNEL(result, name, arguments) bind_form(table, #name, &Kernels::name);
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL
  bind_quantized(module, table);
  bind_timing(table);
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// The optional operands of a GEMM's epilogue, checked against its output's shape.
#pragma once

#include <string>

#include "bindings/names.h"
#include "bindings/numpy.h"

namespace simdformer::bindings {

class GemmEpilogue {
 public:
  GemmEpilogue(size_t rows, size_t n, const py::object& bias, const std::string& activation,
               const py::object& residual, const py::object& norm_weight,
               const py::object& norm_bias, float eps)
      : bias_("bias", bias, n),
        norm_weight_("norm_weight", norm_weight, n),
        norm_bias_("norm_bias", norm_bias, n),
        activation_(by_name("activation", activation, kActivations)),
        eps_(eps) {
    if (residual.is_none()) return;
    residual_ = float_array("residual", residual, 2);
    check(matrix(residual_).rows == rows && matrix(residual_).cols == n,
          "residual must have shape (", rows, ", ", n, "), got ", shape_of(residual_));
    has_residual_ = true;
  }

  void apply(GemmArgs& args) const {
    args.bias = bias_.data();
    args.activation = activation_;
    if (has_residual_) args.residual = residual_.data();
    args.ldr = args.n;
    args.norm_weight = norm_weight_.data();
    args.norm_bias = norm_bias_.data();
    args.norm_eps = eps_;
  }

 private:
  OptionalVector bias_;
  OptionalVector norm_weight_;
  OptionalVector norm_bias_;
  FloatArray residual_;
  bool has_residual_ = false;
  Activation activation_;
  float eps_;
};

}  // namespace simdformer::bindings

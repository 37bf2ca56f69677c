// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace simdformer::bindings {

void bind_attention(pybind11::module_& module);
void bind_functional(pybind11::module_& module);
void bind_positions(pybind11::module_& module);
void bind_kernels(pybind11::module_& module);
void bind_layers(pybind11::module_& module);
void bind_nn(pybind11::module_& module);
// The parts of the module.
void bind_nn_arguments(pybind11::module_& module);
void bind_nn_attention(pybind11::module_& module);
void bind_pooled(pybind11::module_& module);
void bind_stack(pybind11::module_& module);

}  // namespace simdformer::bindings

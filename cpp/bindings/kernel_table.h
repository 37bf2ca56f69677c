// SPDX-License-Identifier: Apache-2.0
// One ISA level's kernels as a Python object, for tests (bind_kernels.cpp,
// bind_quantized.cpp) and benchmarks (bind_timing.cpp).
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "base/buffer.h"
#include "isa/dispatch.h"

namespace simdformer::bindings {

// Forms of arguments shared by several kernels. A form needs only one binding and one timing.
using ElementKernel = void (*)(size_t n, const float* x, float* y);
using RowKernel = void (*)(size_t rows, size_t cols, const float* x, float* y);
using AttentionKernel = void (*)(const AttentionArgs& args);

struct KernelTable {
  const Kernels& kernels;

  explicit KernelTable(const std::string& isa) : kernels(kernels_of(isa)) {}

  Buffer<float> pack(ConstMatrix weight) const {
    Buffer<float> packed(kernels.packed_size(weight.rows, weight.cols));
    kernels.pack_weight(weight.rows, weight.cols, weight.data, weight.stride, 0,
                        num_panels(kernels, weight.rows), packed.data());
    return packed;
  }

  GemmArgs gemm_args(ConstMatrix a, size_t n, const Buffer<float>& packed, Matrix c) const {
    return {.m = a.rows,
            .n = n,
            .k = a.cols,
            .a = a.data,
            .lda = a.stride,
            .packed_weight = packed.data(),
            .packed_k = a.cols,
            .panel_end = num_panels(kernels, n),
            .c = c.data,
            .ldc = c.stride};
  }

  // Scratch that is large enough for any AttentionKernel.
  Buffer<float> attention_scratch(ConstMatrix k, ConstMatrix v) const {
    return Buffer<float>(kernels.attention_s16_scratch(k.rows, k.cols, v.cols));
  }

  AttentionArgs attention_args(ConstMatrix q, ConstMatrix k, ConstMatrix v, float softmax_scale,
                               Buffer<float>& scratch, Matrix out) const {
    return {.num_queries = q.rows,
            .num_keys = k.rows,
            .head_dim = q.cols,
            .value_dim = v.cols,
            .softmax_scale = softmax_scale,
            .q = q.data,
            .ldq = q.stride,
            .k = k.data,
            .ldk = k.stride,
            .v = v.data,
            .ldv = v.stride,
            .out = out.data,
            .ldo = out.stride,
            .scratch = scratch.data()};
  }
};

using KernelTableClass = pybind11::class_<KernelTable>;
void bind_quantized(pybind11::module_& module, KernelTableClass& table);
void bind_timing(KernelTableClass& table);

}  // namespace simdformer::bindings

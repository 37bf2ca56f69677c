// SPDX-License-Identifier: Apache-2.0
// Timed kernels for bench/: operands are prepared once, the GIL is released, and one thread runs.
#include <pybind11/stl.h>
#include <time.h>

#include <functional>
#include <map>

#include "bindings/kernel_table.h"
#include "bindings/names.h"
#include "bindings/numpy.h"
#include "layers/parts/packed_bf16.h"
#include "layers/parts/quantized.h"

namespace simdformer::bindings {
namespace {

using py::arg;

// Values in [-1, 1): no subnormal numbers, no overflow, the same in every run.
Buffer<float> test_values(size_t size) {
  Buffer<float> values(size);
  uint32_t state = 1;
  for (size_t i = 0; i < size; ++i) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
    values[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

struct TestMatrix {
  Buffer<float> values;
  Matrix view;

  TestMatrix(size_t rows, size_t cols)
      : values(test_values(rows * padded_stride(cols))),
        view{values.data(), rows, cols, padded_stride(cols)} {}
};

// The CPU time of this thread, which does not include time taken by other processes.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Mean seconds of one call.
template <typename Call>
double seconds_per_call(size_t repeats, Call&& call) {
  check(repeats > 0, "repeats must be positive");
  const GilRelease release;
  const double start = thread_seconds();
  for (size_t i = 0; i < repeats; ++i) call();
  return (thread_seconds() - start) / static_cast<double>(repeats);
}

// The same after one uncounted call, so that page faults and cold caches are not measured.
template <typename Call>
double warm_seconds_per_call(size_t repeats, Call&& call) {
  seconds_per_call(1, call);
  return seconds_per_call(repeats, call);
}

double time_gemm(const KernelTable& self, size_t m, size_t n, size_t k, size_t repeats,
                 const std::string& activation) {
  const TestMatrix a(m, k);
  const TestMatrix weight(n, k);
  const TestMatrix c(m, n);
  const Buffer<float> bias = test_values(n);
  const Buffer<float> packed = self.pack(weight.view);
  GemmArgs args = self.gemm_args(a.view, n, packed, c.view);
  args.bias = bias.data();
  args.activation = by_name("activation", activation, kActivations);
  return warm_seconds_per_call(repeats, [&] { self.kernels.gemm(args); });
}

double time_gemm_bf16(const KernelTable& self, size_t m, size_t n, size_t k, size_t repeats) {
  const TestMatrix a(m, k);
  const TestMatrix weight(n, k);
  const TestMatrix c(m, n);
  const PackedBf16 packed(self.kernels, weight.view);
  const GemmArgs args = self.gemm_args(a.view, n, Buffer<float>(), c.view);
  return warm_seconds_per_call(repeats, [&] { packed.gemm(self.kernels, args); });
}

double time_gemm_s8(const KernelTable& self, size_t m, size_t n, size_t k, size_t repeats) {
  const TestMatrix a(m, k);
  const TestMatrix weight(n, k);
  const TestMatrix c(m, n);
  Buffer<int8_t> values(n * k);
  Buffer<float> scale(n * num_s8_groups(k));
  const bool rotated = self.kernels.s8_rotates;
  quantize_weight(weight.view, {}, rotated, values.data(), scale.data());
  const PackedS8 packed(
      self.kernels,
      {.rows = n, .cols = k, .values = values.data(), .scale = scale.data(), .rotated = rotated});
  const GemmArgs args = self.gemm_args(a.view, n, Buffer<float>(), c.view);
  return warm_seconds_per_call(repeats, [&] { self.kernels.gemm_s8(args, packed.view()); });
}

double time_attention(const KernelTable& self, AttentionKernel kernel, size_t num_queries,
                      size_t num_keys, size_t head_dim, size_t repeats) {
  const TestMatrix q(num_queries, head_dim);
  const TestMatrix k(num_keys, head_dim);
  const TestMatrix v(num_keys, head_dim);
  const TestMatrix out(num_queries, head_dim);
  Buffer<float> scratch = self.attention_scratch(k.view, v.view);
  const AttentionArgs args = self.attention_args(q.view, k.view, v.view, 0.125f, scratch, out.view);
  return warm_seconds_per_call(repeats, [&] { kernel(args); });
}

// A call of a kernel on rows of contiguous data, x -> y.
using RowCall =
    std::function<void(const Kernels&, size_t rows, size_t cols, const float* x, float* y)>;
using RowCalls = std::map<std::string, RowCall>;

void embedding_rows(const Kernels& kernels, size_t rows, size_t cols, const float* x, float* y) {
  std::vector<int32_t> ids(rows);
  for (size_t i = 0; i < rows; ++i) ids[i] = static_cast<int32_t>(i * 7919 % rows);
  kernels.embedding_sum({.rows = rows,
                         .cols = cols,
                         .word = {.float32 = x},
                         .position = x,
                         .token_type = x,
                         .input_ids = ids.data(),
                         .position_ids = ids.data(),
                         .token_type_ids = nullptr,
                         .y = y,
                         .ldy = cols});
}

// The code that kernels.inc generates for a kernel.
void add_form(RowCalls& calls, const char* name, RowKernel Kernels::* kernel) {
  calls[name] = [kernel](const Kernels& k, size_t rows, size_t cols, const float* x, float* y) {
    (k.*kernel)(rows, cols, x, y);
  };
}

void add_form(RowCalls& calls, const char* name, ElementKernel Kernels::* kernel) {
  calls[name] = [kernel](const Kernels& k, size_t rows, size_t cols, const float* x, float* y) {
    (k.*kernel)(rows * cols, x, y);
  };
}

template <typename Other>
void add_form(RowCalls&, const char*, Other Kernels::*) {}

void add_activation(RowCalls& calls, const char* name, Activation kind) {
  calls[name] = [kind](const Kernels& k, size_t rows, size_t cols, const float* x, float* y) {
    k.activation(kind, rows * cols, x, y);
  };
}

RowCalls make_row_calls() {
  RowCalls calls{
      {"layer_norm",
       [](const Kernels& k, size_t rows, size_t cols, const float* x, float* y) {
         k.layer_norm({.rows = rows,
                       .cols = cols,
                       .x = x,
                       .ldx = cols,
                       .weight = x,
                       .bias = x,
                       .eps = 1e-5f,
                       .y = y,
                       .ldy = cols});
       }},
      {"pool_mean", [](const Kernels& k, size_t rows, size_t cols, const float* x,
                       float* y) { k.pool(Pooling::kMean, rows, cols, x, cols, 0, y); }},
      {"l2_normalize", [](const Kernels& k, size_t rows, size_t cols, const float* x,
                          float* y) { k.l2_normalize(rows, cols, 1e-12f, x, y); }},
      {"embedding_sum", embedding_rows},
      {"read_sum", [](const Kernels& k, size_t rows, size_t cols, const float* x,
                      float* y) { *y = k.probe_read(rows * cols, x); }},
  };
  add_activation(calls, "gelu", Activation::kGelu);
  add_activation(calls, "gelu_tanh", Activation::kGeluTanh);
  add_activation(calls, "silu", Activation::kSilu);
#define SIMDFORMER_KERNEL(result, name, arguments) add_form(calls, #name, &Kernels::name);
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL
  return calls;
}

const RowCalls& row_calls() {
  static const RowCalls calls = make_row_calls();
  return calls;
}

double time_rows(const KernelTable& self, const std::string& name, size_t rows, size_t cols,
                 size_t repeats) {
  const auto found = row_calls().find(name);
  check(found != row_calls().end(), "no row kernel is named '", name, "'");
  const Buffer<float> x = test_values(rows * cols);
  Buffer<float> y(rows * cols);
  return warm_seconds_per_call(
      repeats, [&] { found->second(self.kernels, rows, cols, x.data(), y.data()); });
}

void bind_form(KernelTableClass& table, const char* name, AttentionKernel Kernels::* kernel) {
  table.def(
      concat("time_", name).c_str(),
      [kernel](const KernelTable& self, size_t num_queries, size_t num_keys, size_t head_dim,
               size_t repeats) {
        return time_attention(self, self.kernels.*kernel, num_queries, num_keys, head_dim, repeats);
      },
      arg("num_queries"), arg("num_keys"), arg("head_dim"), arg("repeats"));
}

template <typename Other>
void bind_form(KernelTableClass&, const char*, Other Kernels::*) {}

// All kernels that can be timed: by a function of their own, or by time_rows.
std::vector<std::string> names(const py::object& self) {
  std::vector<std::string> all;
#define SIMDFORMER_KERNEL(result, name, arguments) \
  if (py::hasattr(self, "time_" #name)) all.emplace_back(#name);
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL
  for (const auto& [name, call] : row_calls()) all.push_back(name);
  return all;
}

// GFLOP/s of one thread with operands in registers.
double fma_peak(const KernelTable& self, size_t iterations) {
  volatile float sink = 0;
  const double seconds = seconds_per_call(1, [&] { sink = self.kernels.probe_fma(iterations); });
  return static_cast<double>(iterations * self.kernels.probe_flops) / seconds * 1e-9;
}

// Billions of int8 operations per second of one thread with operands in registers.
double dot_peak(const KernelTable& self, size_t iterations) {
  volatile float sink = 0;
  const double seconds = seconds_per_call(1, [&] { sink = self.kernels.probe_dot(iterations); });
  return static_cast<double>(iterations * self.kernels.probe_dot_ops) / seconds * 1e-9;
}

float read_sum(const KernelTable& self, const py::object& x_object) {
  const FloatArray x = float_array("x", x_object, 1);
  const GilRelease release;
  return self.kernels.probe_read(static_cast<size_t>(x.size()), x.data());
}

}  // namespace

void bind_timing(KernelTableClass& table) {
  table.def("names", &names)
      .def("time_gemm", &time_gemm, arg("m"), arg("n"), arg("k"), arg("repeats"), py::kw_only(),
           arg("activation") = "identity")
      .def("time_gemm_bf16", &time_gemm_bf16, arg("m"), arg("n"), arg("k"), arg("repeats"))
      .def("time_gemm_s8", &time_gemm_s8, arg("m"), arg("n"), arg("k"), arg("repeats"))
      .def("time_rows", &time_rows, arg("name"), arg("rows"), arg("cols"), arg("repeats"))
      .def("fma_peak", &fma_peak, arg("iterations"))
      .def("dot_peak", &dot_peak, arg("iterations"))
      .def("read_sum", &read_sum, arg("x"));
#define SIMDFORMER_KERNEL(result, name, arguments) bind_form(table, #name, &Kernels::name);
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/thread_count.h"
#include "base/workers.h"
#include "bindings/bindings.h"
#include "isa/dispatch.h"

namespace py = pybind11;

namespace {

#ifdef __clang__
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

}  // namespace

// threadpoolctl knows a library by what it exports.
extern "C" __attribute__((visibility("default"))) const char* simdformer_thread_provider() {
  return simdformer::thread_provider();
}

PYBIND11_MODULE(_core, module) {
  using namespace simdformer;
  module.doc() = "Native layers and kernels of simdformer.";

  // A forced level that can't run here is refused at import, not at the first call.
  try {
    active_kernels();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(std::string("SIMDFORMER_ISA: ") + error.what());
  }

  module.def("compiled_isas", &compiled_isas);
  module.def("available_isas", &available_isas);
  module.def("active_isa", [] { return active_kernels().isa; });
  module.def("set_active_isa", &set_active_isa, py::arg("isa"));
  module.def("num_threads", [] { return thread_count().count; });
  module.def("num_threads_source", [] { return thread_count().source; });
  module.def("limit_threads", &limit_threads, py::arg("limit"));
  module.def("thread_provider", &thread_provider);
  module.def("cgroup_cpu_limit", &cgroup_cpu_limit, py::arg("root"));
  module.def("compiler", [] { return kCompiler; });

  bindings::bind_kernels(module);
  bindings::bind_layers(module);
  bindings::bind_attention(module);
  bindings::bind_functional(module);
  bindings::bind_positions(module);
  bindings::bind_nn(module);
}

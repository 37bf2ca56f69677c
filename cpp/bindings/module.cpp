// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/thread_count.h"
#include "base/workers.h"
#include "bindings/bindings.h"
#include "bindings/exit_gate.h"
#include "isa/dispatch.h"

namespace py = pybind11;

namespace {

#ifdef __clang__
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

}  // namespace

// threadpoolctl recognizes a library by its exported symbols.
extern "C" PYBIND11_EXPORT const char* simdformer_thread_provider() {
  return simdformer::thread_provider();
}

// Called by PyInit__core below.
PYBIND11_MODULE(simdformer_core, module) {
  using namespace simdformer;
  module.doc() = "Native layers and kernels of simdformer.";

  // An unsupported SIMDFORMER_ISA is an error at import, not in the first call.
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

  // For calls of other libraries that release the GIL.
  module.def("leave_python", &bindings::exit_gate::enter);
  module.def("return_to_python", &bindings::exit_gate::leave);
  py::module_::import("atexit").attr("register")(py::cpp_function(&bindings::exit_gate::close));
  if (const py::module_ os = py::module_::import("os"); py::hasattr(os, "register_at_fork")) {
    os.attr("register_at_fork")(py::arg("after_in_child") =
                                    py::cpp_function(&bindings::exit_gate::reset));
  }

  bindings::bind_kernels(module);
  bindings::bind_layers(module);
  bindings::bind_attention(module);
  bindings::bind_functional(module);
  bindings::bind_positions(module);
  bindings::bind_nn(module);
}

// In a subinterpreter, pybind11 would wait for a lock that its own thread holds: it asks for the
// state of the main interpreter. So subinterpreters are rejected here.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(
        PyExc_ImportError,
        "simdformer runs only in the main interpreter of a process, not in subinterpreters"
        " (mod_wsgi: WSGIApplicationGroup %{GLOBAL})");
    return nullptr;
  }
  return PyInit_simdformer_core();
}

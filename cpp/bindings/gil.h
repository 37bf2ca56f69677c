// SPDX-License-Identifier: Apache-2.0
// Native work without the GIL.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include "base/parallel.h"

namespace simdformer::bindings {

// The GIL is released as long as this lives.
//
// Where the interpreter ends while a daemon thread computes, CPython before 3.14 ends the thread
// when it asks for the GIL, by unwinding its stack. Ours must not be unwound there, it holds what
// workers still use: the thread stops in place of it, as in 3.14, until the process is gone.
class GilRelease {
 public:
  GilRelease() : thread_(PyEval_SaveThread()) {}
  ~GilRelease() { retake(); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

  // Whether a Python signal handler raised. On the thread that made this.
  bool signals_pending() {
    retake();
    const bool pending = PyErr_CheckSignals() != 0;
    thread_ = PyEval_SaveThread();
    return pending;
  }

 private:
  void retake() noexcept {
    try {
      PyEval_RestoreThread(thread_);
    } catch (const abi::__forced_unwind&) {
      for (;;) pause();
    }
  }

  PyThreadState* thread_;
};

// Runs work(stop_check). On the main thread a pending signal (Ctrl-C) ends it early and its Python
// exception is raised.
template <typename Work>
void without_gil(Work&& work) {
  bool stopped = false;
  {
    GilRelease release;
    try {
      work(StopCheck([&release] { return release.signals_pending(); }));
    } catch (const Stopped&) {
      stopped = true;
    }
  }
  if (stopped) throw pybind11::error_already_set();
}

}  // namespace simdformer::bindings

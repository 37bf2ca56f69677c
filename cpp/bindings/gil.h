// SPDX-License-Identifier: Apache-2.0
// Native work without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include "base/parallel.h"
#include "bindings/exit_gate.h"

namespace simdformer::bindings {

// Releases the GIL during its lifetime. If the interpreter has exited meanwhile, the thread stops
// instead of taking the GIL again.
class GilRelease {
 public:
  GilRelease() {
    exit_gate::enter();
    thread_ = PyEval_SaveThread();
  }
  ~GilRelease() noexcept(false) {
    retake();
    exit_gate::leave();
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

  // Whether to stop: because a Python signal handler raised an exception, checked on the thread
  // that created this, or because the interpreter is exiting.
  bool stop_asked() {
    if (exit_gate::closed()) return true;
    retake();
    const bool pending = PyErr_CheckSignals() != 0;
    thread_ = PyEval_SaveThread();
    return pending;
  }

 private:
  // If the gate has waited too long, CPython before 3.14 ends the thread by unwinding its stack.
  // Destructors run then; exception handlers do not run in every C++ library.
  struct StayOut {
    bool back = false;
    ~StayOut() {
      if (!back) exit_gate::stay_out();
    }
  };

  void retake() {
    if (exit_gate::closed()) exit_gate::stay_out();
    StayOut unless_back;
    PyEval_RestoreThread(thread_);
    unless_back.back = true;
  }

  PyThreadState* thread_;
};

// Runs work(stop_check). On the main thread, a pending signal (Ctrl-C) ends it early and raises its
// Python exception.
template <typename Work>
void without_gil(Work&& work) {
  bool stopped = false;
  {
    GilRelease release;
    try {
      work(StopCheck([&release] { return release.stop_asked(); }));
    } catch (const Stopped&) {
      stopped = true;
    }
  }
  if (stopped) throw pybind11::error_already_set();
}

}  // namespace simdformer::bindings

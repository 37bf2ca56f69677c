// SPDX-License-Identifier: Apache-2.0
#include "bindings/exit_gate.h"

#include <Python.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace simdformer::bindings::exit_gate {

namespace {

std::atomic<int> threads_outside = 0;
std::atomic<bool> ending = false;
unsigned long ender;  // written before `ending`

[[noreturn]] void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

}  // namespace

void enter() {
  if (closed()) {
    PyEval_SaveThread();
    sleep_for_ever();
  }
  ++threads_outside;
}

void leave() { --threads_outside; }

bool closed() { return ending && ender != PyThread_get_thread_ident(); }

void stay_out() {
  --threads_outside;
  sleep_for_ever();
}

void close() {
  ender = PyThread_get_thread_ident();
  ending = true;
  constexpr int kTries = 5000;
  PyThreadState* state = PyEval_SaveThread();
  for (int i = 0; i < kTries && threads_outside > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  PyEval_RestoreThread(state);
}

void reset() { threads_outside = 0; }

}  // namespace simdformer::bindings::exit_gate

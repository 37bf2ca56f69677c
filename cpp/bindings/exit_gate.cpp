// SPDX-License-Identifier: Apache-2.0
#include "bindings/exit_gate.h"

#include <Python.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace simdformer::bindings::exit_gate {

namespace {

std::atomic<int> threads_outside = 0;
std::atomic<bool> ending = false;
pthread_t ender;  // written before `ending`

}  // namespace

void enter() {
  if (closed()) {
    PyEval_SaveThread();
    for (;;) pause();
  }
  ++threads_outside;
}

void leave() { --threads_outside; }

bool closed() { return ending && pthread_equal(ender, pthread_self()) == 0; }

void stay_out() {
  --threads_outside;
  for (;;) pause();
}

void close() {
  ender = pthread_self();
  ending = true;
  constexpr int kTries = 5000;
  PyThreadState* state = PyEval_SaveThread();
  for (int i = 0; i < kTries && threads_outside > 0; ++i) usleep(1000);
  PyEval_RestoreThread(state);
}

void reset() { threads_outside = 0; }

}  // namespace simdformer::bindings::exit_gate

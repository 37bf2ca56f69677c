// SPDX-License-Identifier: Apache-2.0
#include <omp.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <latch>
#include <vector>

#include "base/workers.h"

namespace simdformer {
namespace {

// Kernels use up to 160 KB of stack.
constexpr size_t kMinStackBytes = size_t{256} << 10;

// libgomp's workers belong to the thread that opened a region. They do not exist in a forked child,
// and the thread that forked would wait for them forever; so it works alone. Threads that the child
// starts have workers of their own.
thread_local bool workers_lost = false;
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { workers_lost = true; });

void* wait_for_latch(void* latch) {
  static_cast<std::latch*>(latch)->wait();
  return nullptr;
}

// How many of these threads the system can start.
int startable(int wanted) {
  std::vector<pthread_t> threads(static_cast<size_t>(wanted));
  std::latch all_started(1);
  int started = 0;
  while (started < wanted && pthread_create(&threads[static_cast<size_t>(started)], nullptr,
                                            wait_for_latch, &all_started) == 0) {
    ++started;
  }
  all_started.count_down();
  for (int i = 0; i < started; ++i) pthread_join(threads[static_cast<size_t>(i)], nullptr);
  return started;
}

// The workers for a region of this thread, at most `wanted`. libgomp ends the process if the system
// refuses a thread. So missing threads are first started and ended here; the C library keeps their
// stacks for the next ones.
int available_workers(int wanted) {
  thread_local int present = 0;  // libgomp keeps the threads of the last region
  if (wanted == 0 || workers_lost) return 0;
  if (wanted > present) wanted = std::min(wanted, present + startable(wanted - present));
  present = wanted;
  return wanted;
}

bool large_stack() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return false;
  size_t bytes = 0;
  pthread_attr_getstacksize(&attributes, &bytes);
  pthread_attr_destroy(&attributes);
  return bytes >= kMinStackBytes;
}

// A worker whose stack is too small (because of OMP_STACKSIZE) leaves its work to the others.
bool can_work() {
  thread_local const bool large = large_stack();
  return large;
}

}  // namespace

const char* thread_provider() { return "openmp"; }

void run_with_workers(int size, FunctionRef<void(int rank)> body) {
  const int workers = available_workers(size - 1);
  if (workers == 0) return body(0);
  // Signals are for the threads of the program. Workers inherit the signals that are blocked when
  // they start.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
#pragma omp parallel num_threads(workers + 1)
  {
    const int rank = omp_get_thread_num();
    if (rank == 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (rank == 0 || can_work()) body(rank);
  }
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The threads that work beside a caller. Two sources have them, of which SIMDFORMER_THREADS
// compiles one: workers_pool.cpp, a pool of our own, and workers_openmp.cpp. The pool is the
// default: OpenMP's workers spin for milliseconds after each region, and a region ends only when
// every worker has come (docs/performance.md has both side by side).
#pragma once

#include "base/function_ref.h"

namespace simdformer {

// "pool" or "openmp".
const char* thread_provider();

// Calls body(0) on this thread, and each of body(1) ... body(size - 1) on a worker if one becomes
// free before body(0) returns. Those that run must do the work of those that do not. Returns when
// all running bodies are done. body must not throw. Works in a forked child too.
void run_with_workers(int size, FunctionRef<void(int rank)> body);

}  // namespace simdformer

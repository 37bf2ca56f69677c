// SPDX-License-Identifier: Apache-2.0
// The threads that work beside a caller. SIMDFORMER_THREADS selects one of two implementations at
// compile time: workers_pool.cpp, a pool, and workers_openmp.cpp. The pool is the default, because
// OpenMP's workers spin for milliseconds after each region, and a region ends only when all workers
// have joined (docs/performance.md compares them).
#pragma once

#include "base/function_ref.h"

namespace simdformer {

// "pool" or "openmp".
const char* thread_provider();

// Calls body(0) on this thread, and each of body(1) ... body(size - 1) on a worker if one becomes
// free before body(0) returns. The bodies that run must also do the work of those that do not.
// Returns when all running bodies have finished. body must not throw. Also works in a forked child.
void run_with_workers(int size, FunctionRef<void(int rank)> body);

}  // namespace simdformer

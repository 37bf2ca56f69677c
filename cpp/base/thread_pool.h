// SPDX-License-Identifier: Apache-2.0
// The process's worker threads. A pool of our own and not OpenMP's, whose workers spin for
// milliseconds after each region, and whose regions end only when every worker has come: with
// another process on one of two CPUs a short text took 8 ms in place of 4.
#pragma once

#include "base/function_ref.h"

namespace simdformer {

// Threads for one call: as many as wanted, or fewer while other callers hold some, as they share
// the process's threads instead of multiplying them.
class ThreadLease {
 public:
  explicit ThreadLease(int wanted);
  ~ThreadLease();
  ThreadLease(const ThreadLease&) = delete;
  ThreadLease& operator=(const ThreadLease&) = delete;

  int size() const { return size_; }

  // Calls body(0) on this thread, and each of body(1) ... body(size - 1) on a worker, if one finds
  // the time before body(0) returns: whoever comes must do the work of those who do not. Returns
  // when all that came are done. body must not throw. Works in a forked child too.
  void run(FunctionRef<void(int rank)> body) const;

 private:
  int size_;
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace simdformer {

// Threads for one call: as many as wanted, or fewer while other callers hold some, as they share
// the process's threads instead of multiplying them. At least the caller's own.
class ThreadLease {
 public:
  explicit ThreadLease(int wanted);
  ~ThreadLease();
  ThreadLease(const ThreadLease&) = delete;
  ThreadLease& operator=(const ThreadLease&) = delete;

  int size() const { return size_; }

 private:
  int size_;
};

}  // namespace simdformer

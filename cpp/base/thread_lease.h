// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace simdformer {

// The threads for one call: as many as requested, or fewer while other callers hold some, because
// all callers share the process's threads. Always at least the caller's own.
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

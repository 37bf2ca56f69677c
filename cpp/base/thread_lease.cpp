// SPDX-License-Identifier: Apache-2.0
#include "base/thread_lease.h"

#include <algorithm>
#include <atomic>

#include "base/system.h"
#include "base/thread_count.h"

namespace simdformer {
namespace {

std::atomic<int> leased{0};

// The calls of other threads do not exist in a forked child.
[[maybe_unused]] const bool fork_handler = at_fork(nullptr, nullptr, [] { leased = 0; });

}  // namespace

ThreadLease::ThreadLease(int wanted) {
  const int limit = std::max(wanted, thread_count().count);
  const int used = leased.fetch_add(wanted);
  size_ = std::clamp(limit - used, 1, wanted);
  leased.fetch_sub(wanted - size_);
}

ThreadLease::~ThreadLease() { leased.fetch_sub(size_); }

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The number of threads that this process may use, and the reason.
#pragma once

#include <string>

namespace simdformer {

struct ThreadCount {
  int count = 1;
  std::string source;  // its source, for messages: "SIMDFORMER_NUM_THREADS=4"
};

// The smallest of: the CPUs in the affinity mask, the cgroup quota rounded down (at least 1), and
// SIMDFORMER_NUM_THREADS or, if that is not set, OMP_NUM_THREADS. Read once.
const ThreadCount& default_thread_count();

// Calls that start from now on get at most `limit` threads, whatever they request. A limit of at
// least default_thread_count() has no effect. Any thread may set it.
void limit_threads(int limit);

// default_thread_count(), or the limit if that is lower.
ThreadCount thread_count();

// The number of threads for a call that requests num_threads; 0 means thread_count(). Asked once
// per call, because the limit may change meanwhile.
int threads_of_call(int num_threads);

// The number of CPUs that the cgroup quota of this process and of its ancestors allows, v2
// (cpu.max) or v1 (cfs_quota_us); 0 if unlimited or unknown. root is "/" except in tests.
double cgroup_cpu_limit(const std::string& root);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// How many threads this process may use, and why.
#pragma once

#include <string>

namespace simdformer {

struct ThreadCount {
  int count = 1;
  std::string source;  // what set it, for messages: "SIMDFORMER_NUM_THREADS=4"
};

// The smallest of: CPUs in the affinity mask, the cgroup quota rounded down (at least 1), and
// SIMDFORMER_NUM_THREADS or, without it, OMP_NUM_THREADS. Read once.
const ThreadCount& default_thread_count();

// Calls that begin from now on get at most limit threads, whatever they ask for. A limit of
// default_thread_count() or more is none. Any thread may set it.
void limit_threads(int limit);

// default_thread_count(), or the limit where that is lower.
ThreadCount thread_count();

// Threads of a call that asks for num_threads, 0 meaning thread_count(). Asked once a call, as the
// limit may change meanwhile.
int threads_of_call(int num_threads);

// CPUs that the cgroup quota of this process allows, v2 (cpu.max) or v1 (cfs_quota_us), its
// ancestors' included; 0 if unlimited or unknown. root is "/" outside tests.
double cgroup_cpu_limit(const std::string& root);

}  // namespace simdformer

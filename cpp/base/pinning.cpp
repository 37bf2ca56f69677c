// SPDX-License-Identifier: Apache-2.0
#include "base/pinning.h"

#if defined(__linux__)
#include <sched.h>

#include <cstdlib>
#include <string_view>
#include <vector>
#endif

namespace simdformer {

#if defined(__linux__)

void pin_worker(size_t id) {
  const char* wanted = std::getenv("SIMDFORMER_PIN_THREADS");
  if (!wanted || std::string_view(wanted) != "1") return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;  // more than 1,024 CPUs
  std::vector<size_t> cpus;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  if (cpus.empty()) return;
  cpu_set_t own;
  CPU_ZERO(&own);
  CPU_SET(cpus[id % cpus.size()], &own);
  // If the mask has changed in the meantime, the worker is not pinned.
  static_cast<void>(sched_setaffinity(0, sizeof own, &own));
}

#else

void pin_worker(size_t) {}

#endif

}  // namespace simdformer

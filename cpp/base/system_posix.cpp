// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <cstdlib>
#include <vector>

#include "base/system.h"

namespace simdformer {

void* allocate_aligned(size_t alignment, size_t bytes) {
  void* p = nullptr;
  return posix_memalign(&p, alignment, bytes) == 0 ? p : nullptr;
}

void free_aligned(void* p) { std::free(p); }

void* map_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

void unmap_pages(void* p, size_t bytes) { munmap(p, bytes); }

void advise_huge_pages([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

void discard_pages(void* p, size_t bytes) {
#ifdef __APPLE__
  constexpr int kDiscard = MADV_FREE_REUSABLE;  // MADV_DONTNEED returns no memory on this system
#else
  constexpr int kDiscard = MADV_DONTNEED;
#endif
  madvise(p, bytes, kDiscard);
}

#ifdef __linux__
CpuCount usable_cpus() {
  constexpr const char* kSource = "CPUs in the affinity mask";
  // Machines with more than 1024 CPUs need a larger mask: EINVAL until it is large enough.
  for (size_t cpus = 1024; cpus <= (size_t{1} << 20); cpus *= 2) {
    std::vector<cpu_set_t> mask(cpus / CPU_SETSIZE);
    const size_t bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) {
      return {CPU_COUNT_S(bytes, mask.data()), kSource};
    }
  }
  return {1, kSource};
}
#else
CpuCount usable_cpus() {
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return {count > 0 ? static_cast<int>(count) : 1, "CPUs of the machine"};
}
#endif

bool start_thread(size_t stack_bytes, void* (*run)(void*), void* argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, run, argument) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

bool at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  pthread_atfork(before, in_parent, in_child);
  return true;
}

}  // namespace simdformer

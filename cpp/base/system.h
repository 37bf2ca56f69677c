// SPDX-License-Identifier: Apache-2.0
// Functions that depend on the operating system: system_posix.cpp (Linux and macOS) and
// system_windows.cpp.
#pragma once

#include <cstddef>

namespace simdformer {

// Null if memory is exhausted. alignment: a power of two.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* p);

// Whole pages of zeros; null if memory is exhausted.
void* map_pages(size_t bytes);
void unmap_pages(void* p, size_t bytes);
// Requests huge pages. No effect if the system has none.
void advise_huge_pages(void* p, size_t bytes);
// Returns the memory of unused mapped pages to the system.
void discard_pages(void* p, size_t bytes);

struct CpuCount {
  int count;
  const char* source;
};

// The CPUs that this process may run on.
CpuCount usable_cpus();

// Runs run(argument) on a detached thread that blocks all signals, because they are for the threads
// of the program. False if the system cannot start another thread.
bool start_thread(size_t stack_bytes, void* (*run)(void*), void* argument);

// Registers functions that run before a fork, and after it in the parent and in the child; each may
// be null. No effect where processes do not fork. Returns true, for the initialization of a global.
bool at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());

}  // namespace simdformer

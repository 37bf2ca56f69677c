// SPDX-License-Identifier: Apache-2.0
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <malloc.h>
#include <process.h>
#include <windows.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "base/system.h"

namespace simdformer {
namespace {

struct Start {
  void* (*run)(void*);
  void* argument;
};

unsigned __stdcall enter(void* argument) {
  const std::unique_ptr<Start> start(static_cast<Start*>(argument));
  start->run(start->argument);
  return 0;
}

}  // namespace

void* allocate_aligned(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }

void free_aligned(void* p) { _aligned_free(p); }

void* map_pages(size_t bytes) {
  return VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void unmap_pages(void* p, size_t) { VirtualFree(p, 0, MEM_RELEASE); }

// Large pages need a privilege that most programs do not have.
void advise_huge_pages(void*, size_t) {}

void discard_pages(void* p, size_t bytes) { VirtualFree(p, bytes, MEM_DECOMMIT); }

CpuCount usable_cpus() {
  DWORD_PTR mask = 0;
  DWORD_PTR system_mask = 0;
  // The mask is 0 for a process that runs on several groups of 64 CPUs.
  if (GetProcessAffinityMask(GetCurrentProcess(), &mask, &system_mask) && mask != 0) {
    return {std::popcount(mask), "CPUs in the affinity mask"};
  }
  const DWORD count = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
  return {std::max(1, static_cast<int>(count)), "CPUs of the machine"};
}

bool start_thread(size_t stack_bytes, void* (*run)(void*), void* argument) {
  auto start = std::make_unique<Start>(Start{run, argument});
  const uintptr_t thread = _beginthreadex(nullptr, static_cast<unsigned>(stack_bytes), enter,
                                          start.get(), STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
  if (thread == 0) return false;
  static_cast<void>(start.release());
  CloseHandle(reinterpret_cast<HANDLE>(thread));
  return true;
}

bool at_fork(void (*)(), void (*)(), void (*)()) { return true; }

}  // namespace simdformer

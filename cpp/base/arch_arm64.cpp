// SPDX-License-Identifier: Apache-2.0
#include "base/arch_arm64.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#else
#include <sys/auxv.h>
#endif

#include <cstddef>

#include "base/arch.h"

namespace simdformer {
namespace {

struct Reported {
  bool dot;
  bool i8mm;
};

#if defined(__APPLE__)
bool has(const char* name) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

Reported ask_system() {
  return {has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM")};
}
#elif defined(_WIN32)
// Defined in winnt.h, but not in older versions of it.
Reported ask_system() {
  constexpr DWORD kDotProducts = 43;     // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
  constexpr DWORD kMatrixProducts = 66;  // PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE
  return {IsProcessorFeaturePresent(kDotProducts) != 0,
          IsProcessorFeaturePresent(kMatrixProducts) != 0};
}
#else
// Bits of asm/hwcap.h; older versions lack the second one.
Reported ask_system() {
  constexpr unsigned long kDotProducts = 1ul << 20;     // HWCAP_ASIMDDP
  constexpr unsigned long kMatrixProducts = 1ul << 13;  // HWCAP2_I8MM
  return {(getauxval(AT_HWCAP) & kDotProducts) != 0, (getauxval(AT_HWCAP2) & kMatrixProducts) != 0};
}
#endif

}  // namespace

// yield does nothing on most cores. isb waits for about ten cycles, like pause on x86.
void spin_pause() { __asm__ volatile("isb" ::: "memory"); }

CpuFeatures detect_cpu_features() {
  const Reported reported = ask_system();
  return {reported.dot, reported.dot && reported.i8mm};
}

}  // namespace simdformer

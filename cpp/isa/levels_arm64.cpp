// SPDX-License-Identifier: Apache-2.0
#include "base/arch_arm64.h"
#include "isa/levels.h"
#include "isa/tables.h"

namespace simdformer {

std::vector<Level> find_levels() {
  [[maybe_unused]] const CpuFeatures cpu = detect_cpu_features();
  return {
      {&kKernelsGeneric, true},
#ifdef SIMDFORMER_HAS_NEON
      {&kKernelsNeon, true},
#endif
#ifdef SIMDFORMER_HAS_NEON_DOT
      {&kKernelsNeonDot, cpu.dot},
#endif
#ifdef SIMDFORMER_HAS_NEON_I8MM
      {&kKernelsNeonI8mm, cpu.i8mm},
#endif
  };
}

}  // namespace simdformer

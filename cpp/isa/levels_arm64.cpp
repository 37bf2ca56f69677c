// SPDX-License-Identifier: Apache-2.0
#include "base/arch_arm64.h"
#include "isa/levels.h"
#include "isa/tables.h"

namespace simdformer {

std::vector<Level> find_levels() {
  const CpuFeatures cpu = detect_cpu_features();
  return {
      {&kKernelsGeneric, true},
      {&kKernelsNeon, true},
      {&kKernelsNeonDot, cpu.dot},
      {&kKernelsNeonI8mm, cpu.i8mm},
  };
}

}  // namespace simdformer

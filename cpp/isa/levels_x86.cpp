// SPDX-License-Identifier: Apache-2.0
#include "base/arch_x86.h"
#include "isa/levels.h"
#include "isa/tables.h"

namespace simdformer {

std::vector<Level> find_levels() {
  const CpuFeatures cpu = detect_cpu_features();
  return {
      {&kKernelsGeneric, true},
      {&kKernelsAvx2, cpu.avx2},
      {&kKernelsAvx2Vnni, cpu.avx2_vnni},
      {&kKernelsAvx512, cpu.avx512},
      {&kKernelsAvx512Vnni, cpu.avx512_vnni},
#ifdef __linux__
      {&kKernelsAvx512Amx, cpu.avx512_amx && ask_for_tiles()},
#endif
  };
}

}  // namespace simdformer

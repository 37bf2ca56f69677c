// SPDX-License-Identifier: Apache-2.0
#include "base/arch_x86.h"
#include "isa/levels.h"
#include "isa/tables.h"

namespace simdformer {

std::vector<Level> find_levels() {
  [[maybe_unused]] const CpuFeatures cpu = detect_cpu_features();
  return {
      {&kKernelsGeneric, true},
#ifdef SIMDFORMER_HAS_AVX2
      {&kKernelsAvx2, cpu.avx2},
#endif
#ifdef SIMDFORMER_HAS_AVX2_VNNI
      {&kKernelsAvx2Vnni, cpu.avx2_vnni},
#endif
#ifdef SIMDFORMER_HAS_AVX512
      {&kKernelsAvx512, cpu.avx512},
#endif
#ifdef SIMDFORMER_HAS_AVX512_VNNI
      {&kKernelsAvx512Vnni, cpu.avx512_vnni},
#endif
#ifdef SIMDFORMER_HAS_AVX512_AMX
      {&kKernelsAvx512Amx, cpu.avx512_amx && ask_for_tiles()},
#endif
  };
}

}  // namespace simdformer

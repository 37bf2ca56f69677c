// SPDX-License-Identifier: Apache-2.0
// x86-64: the features of the CPU (CPUID) that the operating system supports (XGETBV).
#pragma once

namespace simdformer {

struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA, F16C and BMI2, ymm state saved
  bool avx2_vnni = false;    // and AVX-VNNI
  bool avx512 = false;       // AVX-512 F, BW, DQ, VL, zmm state saved
  bool avx512_vnni = false;  // and VNNI
  bool avx512_amx = false;   // and AMX-TILE, -INT8, -BF16, tile state supported by the system
};

CpuFeatures detect_cpu_features();

// Asks Linux for permission to use tiles; their 8 KB of state are saved only on request. Nothing
// else changes the state of the process. The permission applies to all threads and later children,
// and has no effect until tiles are used. False if it is refused, as by Linux before 5.16 and by
// other systems.
bool ask_for_tiles();

}  // namespace simdformer

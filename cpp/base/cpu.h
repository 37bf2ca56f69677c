// SPDX-License-Identifier: Apache-2.0
// What the CPU has (CPUID) and the operating system saves (XGETBV).
#pragma once

namespace simdformer {

struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA, F16C and BMI2, ymm state saved
  bool avx512 = false;       // AVX-512 F, BW, DQ, VL, zmm state saved
  bool avx512_vnni = false;  // and VNNI
};

CpuFeatures detect_cpu_features();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// x86-64: what the CPU has (CPUID) and the operating system saves (XGETBV).
#pragma once

namespace simdformer {

struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA, F16C and BMI2, ymm state saved
  bool avx2_vnni = false;    // and AVX-VNNI
  bool avx512 = false;       // AVX-512 F, BW, DQ, VL, zmm state saved
  bool avx512_vnni = false;  // and VNNI
  bool avx512_amx = false;   // and AMX-TILE, -INT8, -BF16, tile state known to the system
};

CpuFeatures detect_cpu_features();

// Asks Linux to let this process use tiles, whose 8 KB of state is saved only on request.
// This is the only change of the process's state. It applies to all threads and later children, and
// has no effect until tiles are used. False if refused, as by kernels before 5.16 and other
// systems.
bool ask_for_tiles();

}  // namespace simdformer

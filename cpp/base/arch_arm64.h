// SPDX-License-Identifier: Apache-2.0
// AArch64: what the CPU has, as its operating system reports it. NEON belongs to every one.
#pragma once

namespace simdformer {

struct CpuFeatures {
  bool dot = false;   // dot products of bytes (FEAT_DotProd)
  bool i8mm = false;  // and matrix multiplication of bytes (FEAT_I8MM)
};

CpuFeatures detect_cpu_features();

}  // namespace simdformer

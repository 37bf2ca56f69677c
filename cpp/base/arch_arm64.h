// SPDX-License-Identifier: Apache-2.0
// AArch64: the features of the CPU, as reported by the operating system. All of these CPUs have
// NEON.
#pragma once

namespace simdformer {

struct CpuFeatures {
  bool dot = false;   // dot products of bytes (FEAT_DotProd)
  bool i8mm = false;  // and matrix multiplication of bytes (FEAT_I8MM)
};

CpuFeatures detect_cpu_features();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Probes for benchmarks: the limits of the machine at this ISA level.
#pragma once

#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

// 12 independent chains cover FMA latency 4 x 2 ports, and fit the 16 registers of AVX2 and SSE.
constexpr size_t kProbeChains = 12;
constexpr size_t kProbeFlops = kProbeChains * kLanes * 2;

float probe_fma(size_t iterations) {
  VecF32 acc[kProbeChains];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < kProbeChains; ++i) acc[i] = VecF32::broadcast(static_cast<float>(i));
  const VecF32 factor = VecF32::broadcast(0.999f);
  const VecF32 step = VecF32::broadcast(1e-3f);
#pragma GCC unroll 4  // with only 12 FMAs, 7% of the ports' time is lost to the branch (AVX2)
  for (size_t n = 0; n < iterations; ++n) {
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < kProbeChains; ++i) acc[i] = fma(acc[i], factor, step);
  }
  VecF32 sum = acc[0];
  SIMDFORMER_UNROLL
  for (size_t i = 1; i < kProbeChains; ++i) sum = sum + acc[i];
  return reduce_add(sum);
}

float probe_read(size_t n, const float* x) {
  return sum_row(n, x, [](VecF32 v) { return v; });
}

}  // namespace
}  // namespace simdformer

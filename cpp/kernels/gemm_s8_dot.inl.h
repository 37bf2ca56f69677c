// SPDX-License-Identifier: Apache-2.0
// gemm_s8 with dot_u8s8: four products per lane.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

// 64 rows share each panel of weights; 64 x 384 bytes leave room for it in L1. 32 and 128 rows:
// within 1%.
constexpr size_t kS8Rows = 64;

constexpr bool kS8Rotates = false;

constexpr S8Layout kS8Layout{.piece = 4, .flip = 0};

void pack_weight_s8(const PackS8Args& a) { pack_s8_panels<kS8Layout>(a, kS8PanelVectors); }

void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  for_each_s8_block<kS8Rows, kS8Group>(
      g, w, [&](const GemmArgs& part, const S8Rows& a, size_t row, size_t rows) {
        gemm_s8_block<PackedPanel>(part, w, a, row, rows);
      });
}

constexpr size_t kProbeDotOps = kProbeChains * kLanes * 8;

float probe_dot(size_t iterations) {
  uint8_t bytes[kProbeChains * 4];
  for (size_t i = 0; i < sizeof(bytes); ++i) bytes[i] = static_cast<uint8_t>(i);
  VecI32 a[kProbeChains];
  VecI32 acc[kProbeChains];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < kProbeChains; ++i) {
    a[i] = VecI32::broadcast(bytes + 4 * i);
    acc[i] = VecI32::zero();
  }
  for (size_t n = 0; n < iterations; ++n) {
    // Each chain computes its own products again. Without VNNI they are half of the work.
    asm volatile("" : : "r"(bytes) : "memory");
    const VecI32 b = VecI32::broadcast(bytes);
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < kProbeChains; ++i) acc[i] = dot_u8s8(acc[i], a[i], b);
  }
  VecF32 sum = to_float(acc[0]);
  SIMDFORMER_UNROLL
  for (size_t i = 1; i < kProbeChains; ++i) sum = sum + to_float(acc[i]);
  return reduce_add(sum);
}

}  // namespace
}  // namespace simdformer

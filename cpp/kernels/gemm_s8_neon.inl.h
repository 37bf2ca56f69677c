// SPDX-License-Identifier: Apache-2.0
// gemm_s8 for NEON, whose instructions multiply bytes that are both signed or both unsigned.
// Weights are stored as w + 128, unsigned like the codes. A group's sum is that of q (w + 128)
// minus 128 times the sum of q. The latter depends only on the row and is computed once per block.
// Before this file, a level includes its S8Form from s8_form_*.inl.h, which sums a group.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

// 64 x 384 codes and a panel of weights fit into L1.
constexpr size_t kS8Rows = 64;

constexpr bool kS8Rotates = false;

constexpr S8Layout kS8Layout{.piece = S8Form::kPiece, .flip = 0x80};

void pack_weight_s8(const PackS8Args& a) { pack_s8_panels<kS8Layout>(a, kS8PanelVectors); }

// Arranges rows for S8Form: blocks of kTogether rows alternate eight codes of each row. After the
// codes there is a vector with the initial values of their sums. If the number of rows is odd, the
// place of the missing row is not initialized.
SIMDFORMER_INLINE void arrange_rows(const S8Rows& a, size_t groups, size_t rows, uint8_t* to) {
  constexpr size_t kTogether = S8Form::kTogether;
  for (size_t group = 0; group < groups; ++group) {
    for (size_t i = 0; i < rows; ++i) {
      const uint8_t* q = a.q + (group * a.capacity + i) * kS8Group;
      const size_t place = i % kTogether;
      uint8_t* block = to + (group * a.capacity + i - place) * S8Form::kRowBytes;
      int32_t start = 0;
      for (size_t p = 0; p < kS8Group; ++p) start -= 128 * q[p];
      for (size_t p = 0; p < kS8Group; p += 8) {
        __builtin_memcpy(block + p * kTogether + place * 8, q + p, 8);
      }
      constexpr size_t kCopies = kLanes / kTogether;
      for (size_t c = place * kCopies; c < (place + 1) * kCopies; ++c) {
        __builtin_memcpy(block + kS8Group * kTogether + c * sizeof(start), &start, sizeof(start));
      }
    }
  }
}

void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  for_each_s8_block<kS8Rows, kS8Group>(
      g, w, [&](const GemmArgs& part, const S8Rows& a, size_t row, size_t rows) {
        alignas(64) uint8_t q[kS8Rows * (kS8Depth / kS8Group) * S8Form::kRowBytes];
        arrange_rows(a, ceil_div(part.k, kS8Group), rows, q);
        S8Rows arranged = a;
        arranged.q = q;
        arranged.piece = S8Form::kRowBytes;
        gemm_s8_block<S8Form>(part, w, arranged, row, rows);
      });
}

constexpr size_t kProbeDotOps = kProbeChains * kLanes * kDotOps;

float probe_dot(size_t iterations) {
  uint8_t bytes[kLanes * 4 + kProbeChains];
  for (size_t i = 0; i < sizeof(bytes); ++i) bytes[i] = static_cast<uint8_t>(i);
  VecI32 a[kProbeChains];
  VecI32 acc[kProbeChains];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < kProbeChains; ++i) {
    a[i] = VecI32::load(bytes + i);
    acc[i] = VecI32::zero();
  }
  for (size_t n = 0; n < iterations; ++n) {
    // Each chain computes its own products again.
    asm volatile("" : : "r"(bytes) : "memory");
    const VecI32 b = VecI32::load(bytes);
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < kProbeChains; ++i) acc[i] = dot_u8(acc[i], a[i], b);
  }
  VecF32 sum = to_float(acc[0]);
  SIMDFORMER_UNROLL
  for (size_t i = 1; i < kProbeChains; ++i) sum = sum + to_float(acc[i]);
  return reduce_add(sum);
}

}  // namespace
}  // namespace simdformer

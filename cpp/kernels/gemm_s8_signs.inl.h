// SPDX-License-Identifier: Apache-2.0
// gemm_s8 for AVX2 without VNNI. vpmaddubsw multiplies unsigned bytes by signed ones and adds pairs
// in 16 bits; with u8 codes a and s8 weights w the sum would saturate (255 x 127 x 2). It does not
// if the signs are moved to the other operand: |w| times a - 128, or 127 - a where w is negative,
// is at most 128 x 128 in magnitude, and two of them are within [-32768, 32512]. The second operand
// is a with its bits flipped by 0x80 or 0x7F. The missing part, 128 w or 127 w, is the same for all
// rows of A, so a group's sums start with it. Rotated weights are bounded so that nothing
// saturates; they need none of this.
#pragma once

#include "kernels/gemm_s8_vectors.inl.h"

namespace simdformer {
namespace {

constexpr bool kS8Rotates = true;

// 64 rows: 1.5% slower; 32: 4% (Zen 3).
constexpr size_t kS8Rows = 128;

// With fewer rows, splitting takes longer than it saves.
constexpr size_t kS8SplitRows = 5;

constexpr S8Layout kS8Layout{.piece = 4, .flip = 0};

void pack_weight_s8(const PackS8Args& a) { pack_s8_panels<kS8Layout>(a, kS8PanelVectors); }

// The size in bytes of one split group: for every four columns of W the magnitudes of all lanes and
// then the bits to flip in A; after them the initial values of the sums.
constexpr size_t split_size(size_t width) { return width * (2 * kS8Group + sizeof(int32_t)); }

template <size_t NV>
SIMDFORMER_INLINE void split_group(const int8_t* SIMDFORMER_RESTRICT w,
                                   int8_t* SIMDFORMER_RESTRICT split) {
  VecI32 starts[NV];
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) starts[j] = VecI32::zero();
  for (size_t p = 0; p < kS8Group; p += 4, split += 2 * NV * kLanes * 4) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < NV; ++j, w += kLanes * 4) {
      const SplitBytes bytes = split_signs(VecI32::load(w));
      bytes.magnitude.store(split + j * kLanes * 4);
      bytes.flips.store(split + (NV + j) * kLanes * 4);
      starts[j] = add_starts(starts[j], bytes.flips, VecI32::load(w));
    }
  }
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < NV; ++j) starts[j].store(split + j * kLanes * 4);
}

// A split panel, which all strips of rows read.
struct SplitPanel {
  static constexpr size_t kRowBytes = PackedPanel::kRowBytes;
  static constexpr size_t kTogether = PackedPanel::kTogether;

  static constexpr size_t size(size_t width) { return split_size(width); }

  SIMDFORMER_INLINE S8Panel of(const S8Panel& w, size_t groups) {
    static_assert(kTileVectors == 2, "a panel has one vector or two");
    const size_t width = w.outlier_step;
    for (size_t group = 0; group < groups; ++group) {
      const int8_t* packed = w.packed + group * kS8Group * width;
      int8_t* split = bytes + group * size(width);
      width == kNR ? split_group<kTileVectors>(packed, split) : split_group<1>(packed, split);
    }
    S8Panel panel = w;
    panel.packed = bytes;
    return panel;
  }

  // acc = the integer sums of one group.
  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                          const int8_t* SIMDFORMER_RESTRICT w,
                                          VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) {
        acc[i][j] = VecI32::load(w + (2 * kS8Group * NV + j * 4) * kLanes);
      }
    }
    for (size_t p = 0; p < kS8Group; p += 4, w += 2 * NV * kLanes * 4) {
      VecI32 magnitude[NV];
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) magnitude[j] = VecI32::load(w + j * kLanes * 4);
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) {
        const VecI32 av = VecI32::broadcast(q + i * kS8Group + p);
        SIMDFORMER_UNROLL
        for (size_t j = 0; j < NV; ++j) {
          acc[i][j] = dot_split(acc[i][j], av, magnitude[j], w + (NV + j) * kLanes * 4);
        }
      }
    }
  }

  alignas(64) int8_t bytes[kS8Depth / kS8Group * split_size(kNR)];
};

// Panels of bounded weights, as packed by pack_weight_s8.
struct BoundedPanel : PackedPanel {
  // acc = the integer sums of one group.
  template <size_t MR, size_t NV>
  static SIMDFORMER_INLINE void sum_group(const uint8_t* SIMDFORMER_RESTRICT q,
                                          const int8_t* SIMDFORMER_RESTRICT w,
                                          VecI32 (&acc)[MR][NV]) {
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < MR; ++i) {
      SIMDFORMER_UNROLL
      for (size_t j = 0; j < NV; ++j) acc[i][j] = VecI32::zero();
    }
    for (size_t p = 0; p < kS8Group; p += 4, w += NV * kLanes * 4) {
      SIMDFORMER_UNROLL
      for (size_t i = 0; i < MR; ++i) {
        const VecI32 av = VecI32::broadcast(q + i * kS8Group + p);
        SIMDFORMER_UNROLL
        for (size_t j = 0; j < NV; ++j) {
          acc[i][j] = dot_bounded(acc[i][j], av, w + j * kLanes * 4);
        }
      }
    }
  }
};

void gemm_s8(const GemmArgs& g, const S8Weight& w) {
  for_each_s8_block<kS8Rows, kS8Group>(
      g, w, [&](const GemmArgs& part, const S8Rows& a, size_t row, size_t rows) {
        if (w.bounded) {
          gemm_s8_block<BoundedPanel>(part, w, a, row, rows);
        } else if (rows < kS8SplitRows) {
          gemm_s8_block<PackedPanel>(part, w, a, row, rows);
        } else {
          gemm_s8_block<SplitPanel>(part, w, a, row, rows);
        }
      });
}

constexpr size_t kProbeDotOps = kProbeChains * kLanes * 8;

float probe_dot(size_t iterations) {
  alignas(64) int8_t flips[kLanes * 4];
  for (size_t i = 0; i < sizeof(flips); ++i) flips[i] = i % 2 ? int8_t{0x7F} : int8_t{-0x80};
  uint8_t bytes[4] = {1, 2, 3, 4};
  VecI32 acc[kProbeChains];
  SIMDFORMER_UNROLL
  for (size_t i = 0; i < kProbeChains; ++i) acc[i] = VecI32::zero();
  const VecI32 magnitude = VecI32::load(flips);
  for (size_t n = 0; n < iterations; ++n) {
    const VecI32 a = VecI32::broadcast(bytes);
    SIMDFORMER_UNROLL
    for (size_t i = 0; i < kProbeChains; ++i) acc[i] = dot_split(acc[i], a, magnitude, flips);
  }
  VecF32 sum = to_float(acc[0]);
  SIMDFORMER_UNROLL
  for (size_t i = 1; i < kProbeChains; ++i) sum = sum + to_float(acc[i]);
  return reduce_add(sum);
}

}  // namespace
}  // namespace simdformer

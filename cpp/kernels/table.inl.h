// SPDX-License-Identifier: Apache-2.0
// Fills the table of one ISA level. Before including this, an isa/*.cpp includes its vec_*.h,
// defines kIsaName, kTileRows and kTileVectors, and includes one of the int8 GEMMs,
// gemm_s8_*.inl.h. A kernel in kernels.inc that no file below defines is a compile error; so is a
// kernel that is missing in kernels.inc (-Wunused-function).
#pragma once

#include "kernels/activation.inl.h"
#include "kernels/attention.inl.h"
#include "kernels/attention_s16.inl.h"
#include "kernels/embedding.inl.h"
#include "kernels/fold.inl.h"
#include "kernels/gemm.inl.h"
#include "kernels/gemm_bf16.inl.h"
#include "kernels/kernels.h"
#include "kernels/layer_norm.inl.h"
#include "kernels/norm_columns.inl.h"
#include "kernels/pooling.inl.h"
#include "kernels/probe.inl.h"
#include "kernels/quantize.inl.h"
#include "kernels/rms_norm.inl.h"
#include "kernels/rotary.inl.h"
#include "kernels/softmax.inl.h"

namespace simdformer {
namespace {

constexpr Kernels make_table(Bf16Tiles bf16_tiles = {}) {
  return {
      .isa = kIsaName,
      .lanes = kLanes,
      .gemm_mr = kTileRows,
      .gemm_nr = kNR,
      .s8_nr = kS8PanelVectors * kLanes,
      .probe_flops = kProbeFlops,
      .probe_dot_ops = kProbeDotOps,
      .bf16_tiles = bf16_tiles,
#define SIMDFORMER_KERNEL(result, name, arguments) .name = name,
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL
      .s8_layout = kS8Layout,
      .s8_rotates = kS8Rotates,
  };
}

}  // namespace
}  // namespace simdformer

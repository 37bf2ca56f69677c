// SPDX-License-Identifier: Apache-2.0
// Fills the table of one ISA level. Before including this, an isa/*.cpp includes its vec_*.h,
// defines kIsaName, kTileRows and kTileVectors, and includes the int8 GEMM of its choice,
// gemm_s8_*.inl.h. A kernel missing here is a compile error (-Wmissing-field-initializers), an
// unused one too (-Wunused-function).
#pragma once

#include "kernels/activation.inl.h"
#include "kernels/attention.inl.h"
#include "kernels/attention_s16.inl.h"
#include "kernels/embedding.inl.h"
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
      .packed_size = packed_size,
      .pack_weight = pack_weight,
      .gemm = gemm,
      .pack_weight_bf16 = pack_weight_bf16,
      .gemm_bf16 = gemm_bf16,
      .bf16_tiles = bf16_tiles,
      .s8_packed_size = s8_packed_size,
      .s8_ranges_size = s8_ranges_size,
      .pack_weight_s8 = pack_weight_s8,
      .quantize_rows = quantize_rows,
      .gemm_s8 = gemm_s8,
      .attention_scratch = attention_scratch,
      .attention = attention,
      .attention_s16_scratch = attention_s16_scratch,
      .attention_s16 = attention_s16,
      .largest_magnitude = largest_magnitude,
      .pack_keys = pack_keys,
      .pack_values = pack_values,
      .layer_norm = layer_norm,
      .rms_norm = rms_norm,
      .norm_columns = norm_columns,
      .column_moments = column_moments,
      .rotary = rotary,
      .softmax = softmax,
      .activation = activation,
      .gated = gated,
      .exp = exp_row,
      .exp2_nonpositive = exp2_nonpositive_row,
      .embedding_sum = embedding_sum,
      .pool = pool,
      .l2_normalize = l2_normalize,
      .squared_norms = squared_norms,
      .probe_flops = kProbeFlops,
      .probe_fma = probe_fma,
      .probe_dot_ops = kProbeDotOps,
      .probe_dot = probe_dot,
      .probe_read = probe_read,
  };
}

}  // namespace
}  // namespace simdformer

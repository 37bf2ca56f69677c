// SPDX-License-Identifier: Apache-2.0
// Baseline AArch64. 6x12: 18 accumulators + 6 of A + 3 of W = 27 of 32;
// 18 >= FMA latency 4 x 4 pipes. With 7 rows, gcc 12 spills.
#include "simd/dot_neon.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "neon";
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = 3;
constexpr size_t kS8TileRows = 2;  // 2 x 4 accumulators of one vector, widened products

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/s8_form_widening.inl.h"
// Its S8Form must come first.
#include "kernels/gemm_s8_neon.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsNeon = make_table();

}  // namespace simdformer

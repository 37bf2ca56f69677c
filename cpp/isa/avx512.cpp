// SPDX-License-Identifier: Apache-2.0
// AVX-512 F, BW, DQ, VL. 8x48: 24 accumulators + 3 of W + 1 of A = 28 of 32 zmm;
// 11 loads for 24 FMAs keep the load ports under half.
#include "simd/dot_avx512.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx512";
constexpr size_t kTileRows = 8;
constexpr size_t kTileVectors = 3;
constexpr size_t kS8TileRows = 4;  // 12 + 12 accumulators + 3 of W + 1 of A = 28

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_dot.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx512 = make_table();

}  // namespace simdformer

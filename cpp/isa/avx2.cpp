// SPDX-License-Identifier: Apache-2.0
// AVX2 + FMA + F16C. 6x16: 12 accumulators + 2 of W + 1 of A = 15 of 16 ymm;
// 12 >= FMA latency 4 x 2 ports.
#include "simd/dot_avx2.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx2";
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = 2;
constexpr size_t kS8TileRows =
    4;  // 8 accumulators + 2 of W + 1 of A + ones + 2 products = 14 of 16

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_signs.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx2 = make_table();

}  // namespace simdformer

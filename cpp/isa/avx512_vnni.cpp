// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI: avx512.cpp in the same tiles, with vpdpbusd in int8.
#include "simd/dot_avx512_vnni.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx512_vnni";
constexpr size_t kTileRows = 8;
constexpr size_t kTileVectors = 3;
constexpr size_t kS8TileRows = 4;  // 12 + 12 accumulators + 3 of W + 1 of A = 28

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_dot.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx512Vnni = make_table();

}  // namespace simdformer

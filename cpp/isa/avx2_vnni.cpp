// SPDX-License-Identifier: Apache-2.0
// AVX2 with AVX-VNNI: avx2.cpp with vpdpbusd in int8, for CPUs without AVX-512.
#include "simd/dot_avx2_vnni.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx2_vnni";
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = 2;
constexpr size_t kS8TileRows = 3;  // 6 + 6 accumulators + 2 of W + 1 of A = 15 of 16

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_dot.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx2Vnni = make_table();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI and AMX: avx512.cpp in the same tiles, with tdpbusd in int8.
#include "simd/dot_avx512_vnni.h"
#include "simd/tile_amx.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx512_amx";
constexpr size_t kTileRows = 8;
constexpr size_t kTileVectors = 3;

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_amx.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx512Amx = make_table();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI and AMX: avx512.cpp in the same tiles, with tdpbusd in int8, and
// tdpbf16ps with weights in bfloat16.
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
#include "kernels/gemm_bf16_amx.inl.h"
#include "kernels/gemm_s8_amx.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx512Amx = make_table(
    {.packed_size = bf16_tiles_size, .pack_weight = pack_bf16_tiles, .gemm = gemm_bf16_tiles});

}  // namespace simdformer

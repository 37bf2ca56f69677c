// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI: the fp32 kernels of avx512.cpp in the same tiles.
#include "simd/vec_avx512.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "avx512_vnni";
constexpr size_t kTileRows = 8;
constexpr size_t kTileVectors = 3;

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsAvx512Vnni = make_table();

}  // namespace simdformer

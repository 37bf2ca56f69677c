// SPDX-License-Identifier: Apache-2.0
// NEON with matrix multiplication of bytes: neon_dot.cpp with ummla in int8.
#include "simd/dot_neon_i8mm.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "neon_i8mm";
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = 3;
constexpr size_t kS8TileRows = 4;  // 12 + 12 accumulators + 2 of A + 2 of W = 28

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/s8_form_pairs.inl.h"
// Its S8Form must come first.
#include "kernels/gemm_s8_neon.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsNeonI8mm = make_table();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// NEON with dot products: neon.cpp with udot in int8.
#include "simd/dot_neon_dot.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "neon_dot";
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = 3;
constexpr size_t kS8TileRows = 4;  // 12 + 12 accumulators + 4 of A + 3 of W = 31

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/s8_form_lanes.inl.h"
// Its S8Form must come first.
#include "kernels/gemm_s8_neon.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsNeonDot = make_table();

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The compiler's own vectors, on x86-64 SSE2. 4x8: 8 accumulators + 2 of W + 1 of A = 11 of 16 xmm.
#include "simd/vec_generic.h"

namespace simdformer {
namespace {

constexpr const char* kIsaName = "generic";
constexpr size_t kTileRows = 4;
constexpr size_t kTileVectors = 2;
constexpr size_t kS8TileRows = 2;  // 4 + 4 accumulators

}  // namespace
}  // namespace simdformer

#include "isa/tables.h"
#include "kernels/gemm_s8_dot.inl.h"
#include "kernels/table.inl.h"

namespace simdformer {

const Kernels kKernelsGeneric = make_table();

}  // namespace simdformer

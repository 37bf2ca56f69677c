// SPDX-License-Identifier: Apache-2.0
// Selects the kernel table: the widest one that this CPU supports, or the one in SIMDFORMER_ISA.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.h"

namespace simdformer {

// Every level in this build, narrowest first.
std::vector<std::string> compiled_isas();
// The levels that this CPU supports.
std::vector<std::string> available_isas();

// The table of a level. Throws std::invalid_argument, listing both, for an unknown level and for
// one that the CPU does not support.
const Kernels& kernels_of(std::string_view isa);

// The table for new layers, selected in the first call. Throws as kernels_of does if SIMDFORMER_ISA
// names a level that is not supported.
const Kernels& active_kernels();
// New layers will use this level; for tests and comparisons.
void set_active_isa(std::string_view isa);

// The number of panels that pack_weight makes of a weight with n rows.
inline size_t num_panels(const Kernels& kernels, size_t n) {
  return (n + kernels.gemm_nr - 1) / kernels.gemm_nr;
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Which kernel table runs: the widest that this CPU has, or the one SIMDFORMER_ISA names.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.h"

namespace simdformer {

// Every level in this build, narrowest first.
std::vector<std::string> compiled_isas();
// Those that this CPU can run.
std::vector<std::string> available_isas();

// The table of a level. Throws std::invalid_argument, with both lists, for an unknown level and for
// one that the CPU lacks.
const Kernels& kernels_of(std::string_view isa);

// The table that new layers take; chosen at the first call. Throws as kernels_of does if
// SIMDFORMER_ISA names a level that can't run here.
const Kernels& active_kernels();
// Layers made from now on take this level; for tests and comparisons.
void set_active_isa(std::string_view isa);

// The panels that pack_weight makes of a weight of n rows.
inline size_t num_panels(const Kernels& kernels, size_t n) {
  return (n + kernels.gemm_nr - 1) / kernels.gemm_nr;
}

}  // namespace simdformer

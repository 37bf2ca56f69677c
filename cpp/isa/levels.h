// SPDX-License-Identifier: Apache-2.0
// The levels of this build's architecture: levels_NAME.cpp.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace simdformer {

struct Level {
  const Kernels* kernels;
  bool supported;  // by this CPU and its operating system
};

// Narrowest first. The first one runs on every CPU of the architecture.
std::vector<Level> find_levels();

}  // namespace simdformer

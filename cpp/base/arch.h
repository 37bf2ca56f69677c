// SPDX-License-Identifier: Apache-2.0
// Architecture-specific functions, except kernels and levels. Implemented in arch_NAME.cpp.
#pragma once

namespace simdformer {

// For spinning loops: saves power and leaves the core to its other hardware thread.
void spin_pause();

}  // namespace simdformer

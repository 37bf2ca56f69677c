// SPDX-License-Identifier: Apache-2.0
// What each architecture does in its own way, apart from kernels and their levels: arch_NAME.cpp.
#pragma once

namespace simdformer {

// For loops that wait: takes little power, and leaves the core to its other thread.
void spin_pause();

}  // namespace simdformer

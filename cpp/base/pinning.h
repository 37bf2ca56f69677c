// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace simdformer {

// Binds the calling worker to a CPU of the process's affinity mask, the id-th one, counted from 0
// and round, if the environment has SIMDFORMER_PIN_THREADS=1. Does nothing otherwise, and where the
// system has no such call.
void pin_worker(size_t id);

}  // namespace simdformer

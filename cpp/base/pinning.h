// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace simdformer {

// Binds the calling worker to a CPU of the process's affinity mask if the environment has
// SIMDFORMER_PIN_THREADS=1. CPUs are assigned in turn: worker 0 to the first one, and so on.
// Otherwise, and on systems without such a call, it does nothing.
void pin_worker(size_t id);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Sines and cosines of positions, with angles in float64. In float32, the angle of position 1e6
// would be wrong by 6e-2.
#pragma once

#include <cstddef>
#include <span>

#include "base/parallel.h"

namespace simdformer {

// The place of the sine or cosine for position i and frequency j: data[i * row_stride + j * step].
struct TableView {
  float* data = nullptr;
  ptrdiff_t row_stride = 0;
  ptrdiff_t step = 1;
};

// sines[i, j] = scale sin(positions[i] frequencies[j]), and the same for cosines. The bits of an
// element depend only on its own position and frequency.
void sin_cos_table(std::span<const double> positions, std::span<const double> frequencies,
                   double scale, TableView sines, TableView cosines, int num_threads,
                   const StopCheck& stop_check);

}  // namespace simdformer

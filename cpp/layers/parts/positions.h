// SPDX-License-Identifier: Apache-2.0
// Sines and cosines of positions, with angles in float64: in float32 the angle of position 1e6
// would be wrong by 6e-2.
#pragma once

#include <cstddef>
#include <span>

#include "base/parallel.h"

namespace simdformer {

// Where the sine or cosine of position i, frequency j goes: data[i * row_stride + j * step].
struct TableView {
  float* data = nullptr;
  ptrdiff_t row_stride = 0;
  ptrdiff_t step = 1;
};

// sines[i, j] = scale sin(positions[i] frequencies[j]), cosines likewise. An element's bits depend
// on its own position and frequency alone.
void sin_cos_table(std::span<const double> positions, std::span<const double> frequencies,
                   double scale, TableView sines, TableView cosines, int num_threads,
                   const StopCheck& stop_check);

}  // namespace simdformer

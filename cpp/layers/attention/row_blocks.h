// SPDX-License-Identifier: Apache-2.0
// Distributes the rows of strided operands to a team in blocks.
#pragma once

#include <algorithm>

#include "layers/attention/scored_attention.h"

namespace simdformer {

// The number of elements per task: large enough to hide the cost of starting it, and small enough
// to distribute tasks evenly.
constexpr size_t kTaskElements = 16384;
// Below this number of elements, waking other threads costs more than it saves.
constexpr size_t kSerialElements = 2 * kTaskElements;

// Calls body(batch, head, first_row, rows) for all rows of x, on num_threads threads, or on this
// one if x is small.
template <typename Body>
void for_row_blocks(const Operand& x, int num_threads, const StopCheck& stop_check, Body&& body) {
  const size_t rows = std::max<size_t>(1, kTaskElements / std::max<size_t>(1, x.cols));
  const size_t blocks = (x.num_rows + rows - 1) / rows;
  const size_t elements = x.batches * x.heads * x.num_rows * x.cols;
  run_team(elements < kSerialElements ? 1 : num_threads, stop_check, [&](Team& team) {
    team.for_each(x.batches * x.heads * blocks, [&](size_t task) {
      const size_t pair = task / blocks;
      const size_t first = task % blocks * rows;
      body(pair / x.heads, pair % x.heads, first, std::min(rows, x.num_rows - first));
    });
  });
}

}  // namespace simdformer

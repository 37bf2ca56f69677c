// SPDX-License-Identifier: Apache-2.0
// The positions of a weight's numbers in the panels that kernels read (kernels/kernels.h).
#pragma once

#include <algorithm>
#include <cstddef>

namespace simdformer {

// The columns of the panel that starts at `column`: whole vectors.
inline size_t panel_width(size_t n, size_t nr, size_t lanes, size_t column) {
  return (std::min(n - column, nr) + lanes - 1) / lanes * lanes;
}

// Calls visit(j, p, at) for each number w[j, p] of a weight (n, k). Its position `at` is in panels
// [ceil(n / nr)][k][nr]. The calls are in this order.
template <typename Visit>
void for_each_packed(size_t n, size_t k, size_t nr, size_t lanes, const Visit& visit) {
  for (size_t column = 0; column < n; column += nr) {
    const size_t width = panel_width(n, nr, lanes, column);
    const size_t count = std::min(n - column, nr);
    for (size_t p = 0; p < k; ++p) {
      for (size_t j = 0; j < count; ++j) visit(column + j, p, column * k + p * width + j);
    }
  }
}

}  // namespace simdformer

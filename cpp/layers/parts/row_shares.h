// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/parallel.h"

namespace simdformer {

// body(item, first, rows) over the rows of every item, in contiguous shares of the same number of
// items, one a member; where that is no whole number, an item's rows are split in proportion.
// rows_of(item): how many it has. The shares depend on sizes alone.
template <typename RowsOf, typename Body>
void for_each_rows(Team& team, size_t items, RowsOf&& rows_of, Body&& body) {
  const size_t shares = items == 0 ? 0 : team.size();
  team.for_each(shares, [&](size_t share) {
    // In units of an item's shares-th part.
    const size_t begin = share * items;
    const size_t end = begin + items;
    for (size_t item = begin / shares; item * shares < end && !team.stopping(); ++item) {
      const size_t rows = rows_of(item);
      const size_t first = rows * (std::max(begin, item * shares) - item * shares) / shares;
      const size_t last = rows * (std::min(end, (item + 1) * shares) - item * shares) / shares;
      if (last > first) body(item, first, last - first);
    }
  });
}

}  // namespace simdformer

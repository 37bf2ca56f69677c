// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/parallel.h"

namespace simdformer {

// Rows [first, first + rows) of an item.
struct RowRange {
  size_t first;
  size_t rows;
};

// Items in contiguous shares of the same number; where that is no whole number, an item's rows are
// split in proportion.
struct RowShares {
  size_t items;
  size_t shares;

  size_t first_item(size_t share) const { return share * items / shares; }
  bool reaches(size_t share, size_t item) const { return item * shares < (share + 1) * items; }
  // Of an item with that many rows, what belongs to the share.
  RowRange rows_in(size_t share, size_t item, size_t rows) const {
    // In units of an item's shares-th part.
    const size_t begin = item * shares;
    const size_t first = rows * (std::max(share * items, begin) - begin) / shares;
    const size_t last = rows * (std::min((share + 1) * items, begin + shares) - begin) / shares;
    return {first, last - first};
  }
};

// body(item, first, rows) over the rows of every item, a share a member. rows_of(item): how many it
// has. The shares depend on sizes alone.
template <typename RowsOf, typename Body>
void for_each_rows(Team& team, size_t items, RowsOf&& rows_of, Body&& body) {
  const RowShares split{items, items == 0 ? 0 : team.size()};
  team.for_each(split.shares, [&](size_t share) {
    for (size_t item = split.first_item(share); split.reaches(share, item) && !team.stopping();
         ++item) {
      const RowRange range = split.rows_in(share, item, rows_of(item));
      if (range.rows > 0) body(item, range.first, range.rows);
    }
  });
}

}  // namespace simdformer

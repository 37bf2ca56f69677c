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

// Contiguous shares of items, the same number for each. If that number is not whole, the rows of an
// item are split in proportion.
struct RowShares {
  size_t items;
  size_t shares;

  size_t first_item(size_t share) const { return share * items / shares; }
  bool reaches(size_t share, size_t item) const { return item * shares < (share + 1) * items; }
  // The part of an item with this number of rows that belongs to the share.
  RowRange rows_in(size_t share, size_t item, size_t rows) const {
    // in units of 1 / shares of an item
    const size_t begin = item * shares;
    const size_t first = rows * (std::max(share * items, begin) - begin) / shares;
    const size_t last = rows * (std::min((share + 1) * items, begin + shares) - begin) / shares;
    return {first, last - first};
  }
};

// Calls body(item, first, rows) for the rows of every item, one share per member. rows_of(item):
// its number of rows. The shares depend on sizes only.
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

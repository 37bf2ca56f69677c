// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/positions.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

void set_lengths(Positions& p) {
  p.max_length = SIZE_MAX;
  // Distances -center .. size - center - 1 serve positions up to both ends.
  const auto limit = [&](size_t center, size_t size) {
    check(center < size, "there are ", size, " distances, distance 0 cannot be number ", center);
    p.max_length = std::min({p.max_length, center + 1, size - center});
  };
  if (p.relative.size() > 0) {
    check(p.relative_heads > 0 && p.relative.size() % p.relative_heads == 0, "relative has ",
          p.relative.size(), " elements for ", p.relative_heads, " heads");
    p.relative_size = p.relative.size() / p.relative_heads;
    limit(p.relative_center, p.relative_size);
  }
  check(p.sin.size() == p.cos.size(), "cos has ", p.cos.size(), " elements, sin ", p.sin.size());
  check(p.pairs == 0 || (p.cos.size() > 0 && p.cos.size() % p.pairs == 0), "cos has ", p.cos.size(),
        " elements for ", p.pairs, " pairs");
  if (p.pairs > 0) p.max_length = std::min(p.max_length, p.cos.size() / p.pairs);
  if (p.embeddings) limit(p.embeddings->center, p.embeddings->rows.size());
  if (p.max_length == SIZE_MAX) p.max_length = 0;
}

}  // namespace simdformer

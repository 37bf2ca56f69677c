// SPDX-License-Identifier: Apache-2.0
// Which sequences pass through the layers together, and on how many threads.
#pragma once

#include <vector>

#include "layers/stack/batch.h"

namespace simdformer {

struct Schedule {
  std::vector<Block> together;      // run one after another, each by the whole team
  std::vector<Block> side_by_side;  // run one a thread, costliest first

  size_t max_tokens() const;
};

// Cuts a batch into blocks of whole sequences of about kRowBlock tokens, and moves the costliest to
// `together` until the rest keeps team_size threads evenly busy. Depends on sizes alone.
Schedule make_schedule(const Batch& batch, size_t hidden_size, size_t team_size);

}  // namespace simdformer

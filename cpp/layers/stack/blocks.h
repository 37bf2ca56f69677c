// SPDX-License-Identifier: Apache-2.0
// Decides which sequences go through the layers together, and on how many threads.
#pragma once

#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/parallel.h"
#include "layers/parts/batch.h"
#include "layers/parts/workspace.h"

namespace simdformer {

struct Schedule {
  std::vector<Block> together;      // run one after another, each by the whole team
  std::vector<Block> side_by_side;  // run one per thread, costliest first

  size_t max_tokens() const;
  // The largest number of rows of a block's sequences, with offsets other than those of the batch.
  size_t max_tokens_of(std::span<const int32_t> cu_seqlens) const;
};

// Splits a batch into blocks of whole sequences of about kRowBlock tokens, and moves the costliest
// ones to `together` until the others keep team_size threads evenly busy. Depends on sizes only.
Schedule make_schedule(std::span<const int32_t> cu_seqlens, size_t hidden_size, size_t team_size);

// Runs a batch's blocks according to a schedule: first those in `together` by the whole team, then
// the others on one thread each, without a barrier. The results do not depend on the schedule.
// reserve(scratch, tokens) prepares for blocks of that many tokens, before any thread starts.
void run_blocks(WorkspacePool& workspaces, std::span<const int32_t> cu_seqlens, size_t hidden_size,
                int num_threads, const StopCheck& stop_check,
                FunctionRef<void(Scratch, const Schedule&)> reserve,
                FunctionRef<void(Team&, const Block&, Scratch)> forward);

}  // namespace simdformer

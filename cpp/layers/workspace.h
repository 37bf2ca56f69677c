// SPDX-License-Identifier: Apache-2.0
// Scratch of one forward pass, reserved before its threads start and reused by later passes.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "base/buffer.h"

namespace simdformer {

// What one member of a team needs for itself.
struct MemberScratch {
  Buffer<float> attention;     // packed K, V and a strip of scores of one head
  Buffer<float> intermediate;  // a row block's chunk of the feed-forward's inner activations
};

// What a block of tokens needs while it passes through the layers.
struct BlockScratch {
  std::array<Buffer<float>, 2> hidden_states;  // a layer reads one and writes the other
  Buffer<float> attention_output;              // after residual and norm
  Buffer<float> qkv;
  Buffer<float> context;
  Buffer<float> intermediate;  // of a block too small to be split by rows
};

// A block's scratch as a team's layers see it.
struct Scratch {
  BlockScratch& block;
  std::span<MemberScratch> members;  // one a member of the team
};

struct Workspace {
  std::vector<BlockScratch> blocks;  // one a member: blocks may run side by side
  std::vector<MemberScratch> members;

  explicit Workspace(size_t team_size) : blocks(team_size), members(team_size) {}

  Scratch shared() { return {blocks[0], members}; }
  Scratch of_member(size_t rank) { return {blocks[rank], std::span(members).subspan(rank, 1)}; }
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Scratch of one forward pass. It is reserved before threads start, and reused by later passes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/buffer.h"

namespace simdformer {

// The scratch of one member of a team.
struct MemberScratch {
  Buffer<float> attention;     // packed K, V and a strip of scores of one head
  Buffer<float> intermediate;  // a chunk of the feed-forward's inner activations
  Buffer<float> gate;          // the same for the gate of a gated feed-forward
  Buffer<float> relative;      // for the relative positions of a head
  Buffer<float> pooled;        // a sequence's vector between pooling and the last dense layer
  Buffer<float> routed;        // the rows of one expert
};

// How the rows of a block are routed to experts. A routed row is a row for one of its experts; they
// are sorted by expert.
struct RoutingScratch {
  Buffer<float> probabilities;  // (rows, experts)
  Buffer<int32_t> chosen;       // (rows, top_k): the experts of each row
  Buffer<int32_t> places;       // (rows, top_k): their routed rows
  Buffer<int32_t> rows;         // the row of each routed row
  Buffer<int32_t> first;        // (experts + 1): the first routed row of each expert
  Buffer<float> outputs;        // (routed rows, features)
};

// The scratch of a block of tokens while it goes through the layers.
struct BlockScratch {
  std::array<Buffer<float>, 2> hidden_states;  // each layer reads one and writes the other
  std::array<Buffer<float>, 3> projected;      // the inputs of an attention
  Buffer<float> context;
  Buffer<float> intermediate;  // of a block that is too small to be split by rows
  Buffer<float> gate;          // the same for the gate of a gated feed-forward
  Buffer<float> normed;        // the normalized input of a sublayer
  Buffer<float> residual;      // a scaled residual
  Buffer<float> memory;        // the input of cross-attention
  Buffer<float> key_bias;
  Buffer<float> last_rows;  // the rows of the last tokens
  RoutingScratch routing;
};

// A block's scratch for the layers of a team.
struct Scratch {
  BlockScratch& block;
  std::span<MemberScratch> members;  // one per member of the team
};

struct Workspace {
  std::vector<BlockScratch> blocks;  // one per member, because blocks may run at the same time
  std::vector<MemberScratch> members;

  explicit Workspace(size_t team_size) : blocks(team_size), members(team_size) {}

  Scratch shared() { return {blocks[0], members}; }
  Scratch of_member(size_t rank) { return {blocks[rank], std::span(members).subspan(rank, 1)}; }
};

// Workspaces that no call is using. Each running call takes one. Only try_lock is used: a forked
// child would wait forever for a lock that another thread held during the fork.
class WorkspacePool {
 public:
  std::unique_ptr<Workspace> take(size_t team_size) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return std::make_unique<Workspace>(team_size);
    for (auto& free : free_) {
      if (free->members.size() < team_size) continue;
      std::unique_ptr<Workspace> workspace = std::move(free);
      std::swap(free, free_.back());
      free_.pop_back();
      return workspace;
    }
    return std::make_unique<Workspace>(team_size);
  }
  void give_back(std::unique_ptr<Workspace> workspace) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock) free_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
};

}  // namespace simdformer

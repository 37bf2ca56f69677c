// SPDX-License-Identifier: Apache-2.0
// Scratch of one forward pass, reserved before its threads start and reused by later passes.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/buffer.h"

namespace simdformer {

// What one member of a team needs for itself.
struct MemberScratch {
  Buffer<float> attention;     // packed K, V and a strip of scores of one head
  Buffer<float> intermediate;  // a row block's chunk of the feed-forward's inner activations
  Buffer<float> gate;          // likewise, of a gated feed-forward
  Buffer<float> relative;      // of a head's relative positions
  Buffer<float> pooled;        // a sequence's vector between pooling and the last dense layer
};

// What a block of tokens needs while it passes through the layers.
struct BlockScratch {
  std::array<Buffer<float>, 2> hidden_states;  // a layer reads one and writes the other
  std::array<Buffer<float>, 3> projected;      // of an attention's inputs
  Buffer<float> context;
  Buffer<float> intermediate;  // of a block too small to be split by rows
  Buffer<float> gate;          // likewise, of a gated feed-forward
  Buffer<float> normed;        // a sublayer's input behind its norm
  Buffer<float> residual;      // a scaled residual
  Buffer<float> memory;        // what cross-attention reads
  Buffer<float> key_bias;
  Buffer<float> last_rows;  // those of the last tokens
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

// Workspaces that no call is using. A call takes one for its time, so several can run at once. The
// lock is only tried: a child forked while another thread held it would wait for ever.
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

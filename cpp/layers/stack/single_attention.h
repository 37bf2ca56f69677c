// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/attention/multihead_attention.h"
#include "layers/parts/sequence_rows.h"

namespace simdformer {

// Multi-head attention outside a stack, on the callers' arrays.
class SingleAttention {
 public:
  struct Call {
    SequenceRows<const float> query;
    SequenceRows<const float> key;    // read if it is projected separately from query
    SequenceRows<const float> value;  // the same
    SequenceRows<float> out;
    size_t padded_length = 0;   // rows of out per sequence; those after its length become 0
    bool head_outputs = false;  // out receives the heads' outputs instead of their projection
    AttentionPattern pattern;   // cu_k includes the extra keys
    const Positions* position = nullptr;  // instead of the attention's own
    Strided<const float> head_mask;
    Strided<float> weights;
  };

  explicit SingleAttention(std::shared_ptr<const MultiheadAttention> attention);

  const MultiheadAttention& attention() const { return *attention_; }
  const std::shared_ptr<const MultiheadAttention>& shared() const { return attention_; }
  void forward(const Call& call, int num_threads, const StopCheck& stop_check) const;

 private:
  void forward_block(Team& team, const Call& call, const Block& block, Scratch scratch) const;

  std::shared_ptr<const MultiheadAttention> attention_;
  std::unique_ptr<WorkspacePool> workspaces_;
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/attention/multihead_attention.h"
#include "layers/stack/sequence_rows.h"

namespace simdformer {

// Multi-head attention by itself, on the callers' arrays.
class AttentionModule {
 public:
  struct Call {
    SequenceRows<const float> query;
    SequenceRows<const float> key;
    SequenceRows<const float> value;
    SequenceRows<float> out;
    size_t padded_length = 0;   // rows of out a sequence; those behind its length become 0
    bool head_outputs = false;  // out takes the heads' outputs instead of their projection
    AttentionPattern pattern;   // cu_k counts the extra keys too
    PositionTables position;
    Strided<const float> head_mask;
    Strided<float> weights;
  };

  explicit AttentionModule(std::shared_ptr<const MultiheadAttention> attention);

  const MultiheadAttention& attention() const { return *attention_; }
  const std::shared_ptr<const MultiheadAttention>& shared() const { return attention_; }
  void forward(const Call& call, int num_threads, const StopCheck& stop_check) const;

 private:
  std::shared_ptr<const MultiheadAttention> attention_;
  std::unique_ptr<WorkspacePool> workspaces_;
};

}  // namespace simdformer

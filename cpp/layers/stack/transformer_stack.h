// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/stack/schedule.h"
#include "layers/stack/sequence_rows.h"
#include "layers/stack/transformer_layer.h"

namespace simdformer {

// Layers one after another in one call, with a last norm if there is one.
class TransformerStack {
 public:
  struct Call {
    SequenceRows<const float> x;  // lengths by self.cu_q
    SequenceRows<float> y;
    size_t padded_length = 0;          // rows of y a sequence; those behind its length become 0
    AttentionPattern self;             // cu_k is cu_q
    SequenceRows<const float> memory;  // lengths by cross.cu_k
    AttentionPattern cross;
    KVCache* self_cache = nullptr;
    KVCache* cross_cache = nullptr;               // filled by the call that finds it empty
    std::vector<TransformerLayer::Place> places;  // one a layer
  };

  // All layers, and norm (null: none), of one hidden size.
  TransformerStack(std::vector<std::shared_ptr<const TransformerLayer>> layers,
                   std::shared_ptr<const Norm> norm);
  ~TransformerStack();

  size_t hidden_size() const { return layers_.front()->hidden_size(); }
  size_t num_layers() const { return layers_.size(); }
  const TransformerLayer& layer(size_t i) const { return *layers_[i]; }
  bool has_cross_attention() const;

  // Throws Stopped, and std::invalid_argument. A cache is used by one call at a time.
  void forward(const Call& call, int num_threads, const StopCheck& stop_check) const;

 private:
  using Sizes = TransformerLayer::Sizes;
  Sizes sizes_of(const Call& call, const Schedule& schedule) const;
  void reserve(Scratch scratch, const Call& call, const Sizes& sizes) const;
  void reserve_caches(const Call& call) const;
  void forward_block(Team& team, const Call& call, const Block& block, Scratch scratch) const;
  bool reads_memory(const Call& call) const;

  std::vector<std::shared_ptr<const TransformerLayer>> layers_;
  std::shared_ptr<const Norm> norm_;
  std::unique_ptr<WorkspacePool> workspaces_;
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/embeddings.h"
#include "layers/parts/sequence_rows.h"
#include "layers/stack/blocks.h"
#include "layers/stack/sink.h"
#include "layers/stack/transformer_layer.h"

namespace simdformer {

// Several layers in one call: a source (token ids through embeddings, or rows), the layers, an
// optional final norm, and a sink.
class TransformerStack {
 public:
  struct Call {
    // Lengths are given by self.cu_q. One of these two is set:
    const Batch* ids = nullptr;        // for a stack with embeddings
    SequenceRows<const float> rows;    // (.., hidden_size)
    AttentionPattern self;             // cu_k is cu_q
    SequenceRows<const float> memory;  // lengths are given by cross.cu_k
    AttentionPattern cross;
    KVCache* self_cache = nullptr;
    KVCache* cross_cache = nullptr;            // filled by the first call
    std::vector<TransformerLayer::Taps> taps;  // empty, or one per layer
    std::vector<Matrix> hidden_states;         // empty, or the input of each layer, packed, and the
                                               // last output, as the sink gets it; no data: not
                                               // requested
  };

  // The layers, norm (null: none) and embeddings (null: the source is rows) have the same hidden
  // size.
  TransformerStack(std::vector<std::shared_ptr<const TransformerLayer>> layers,
                   std::shared_ptr<const Norm> norm, std::shared_ptr<const Embeddings> embeddings);
  ~TransformerStack();

  size_t hidden_size() const { return hidden_size_; }
  size_t num_layers() const { return layers_.size(); }
  const std::vector<std::shared_ptr<const TransformerLayer>>& layers() const { return layers_; }
  const std::shared_ptr<const Norm>& norm() const { return norm_; }
  const std::shared_ptr<const Embeddings>& shared_embeddings() const { return embeddings_; }
  const TransformerLayer& layer(size_t i) const { return *layers_[i]; }
  const Embeddings* embeddings() const { return embeddings_.get(); }
  bool has_cross_attention() const { return !layers_.empty() && layers_[0]->cross_attention(); }
  // The maximum length of a sequence for embeddings and layers; 0: no limit.
  size_t max_length() const { return max_length_; }

  // Throws Stopped, std::invalid_argument and std::out_of_range (for ids). Only one call may use a
  // cache at a time; everything else is thread-safe.
  void forward(const Call& call, int num_threads, const StopCheck& stop_check, Sink& sink) const;

 private:
  using Sizes = TransformerLayer::Sizes;
  void check_call(const Call& call) const;
  Sizes sizes_of(const Call& call, const Schedule& schedule) const;
  void reserve(Scratch scratch, const Call& call, const Sizes& sizes) const;
  void reserve_caches(const Call& call) const;
  void forward_block(Team& team, const Call& call, const Block& block, Scratch scratch,
                     Sink& sink) const;
  bool reads_memory(const Call& call) const;

  std::vector<std::shared_ptr<const TransformerLayer>> layers_;
  std::shared_ptr<const Norm> norm_;
  std::shared_ptr<const Embeddings> embeddings_;
  size_t hidden_size_ = 0;
  size_t max_length_ = 0;
  std::unique_ptr<WorkspacePool> workspaces_;
};

}  // namespace simdformer

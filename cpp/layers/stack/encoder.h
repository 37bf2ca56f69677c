// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "layers/parts/embeddings.h"
#include "layers/parts/pooling.h"
#include "layers/stack/encoder_layer.h"

namespace simdformer {

class WorkspacePool;

// Embeddings and a stack of layers, from token ids to hidden states in one call.
//
// The batch is cut into blocks of whole sequences. Blocks run side by side, each on one thread
// through all layers without a barrier; what would leave threads idle (a single text, an uneven
// rest) is run by the whole team together. Neither choice shows in the results.
class Encoder {
 public:
  // norm: of the last layer's output, or null.
  Encoder(std::shared_ptr<const Embeddings> embeddings,
          std::vector<std::shared_ptr<const EncoderLayer>> layers,
          std::shared_ptr<const Norm> norm = nullptr);
  ~Encoder();

  const Embeddings& embeddings() const { return *embeddings_; }
  size_t hidden_size() const { return embeddings_->hidden_size(); }
  // The longest sequence that embeddings and layers serve; 0: any.
  size_t max_positions() const { return max_positions_; }

  // sink(member, sequence, rows) is called once for each sequence, with its hidden states and the
  // rank of the team's member that calls it. num_threads = 0: the default. Throws Stopped,
  // std::invalid_argument and std::out_of_range. Safe to call from several threads.
  using Sink = FunctionRef<void(size_t member, size_t sequence, ConstMatrix hidden_states)>;
  void forward(const Batch& batch, int num_threads, const StopCheck& stop_check, Sink sink) const;

 private:
  using BlockSink = FunctionRef<void(Team& team, size_t sequence, ConstMatrix hidden_states)>;
  void forward_block(Team& team, const Batch& batch, const Block& block, Scratch scratch,
                     const BlockSink& sink) const;
  void reserve(Scratch scratch, size_t tokens, size_t max_length) const;

  std::shared_ptr<const Embeddings> embeddings_;
  std::vector<std::shared_ptr<const EncoderLayer>> layers_;
  std::shared_ptr<const Norm> norm_;
  size_t max_positions_;
  std::unique_ptr<WorkspacePool> workspaces_;
};

// An encoder with a head: one embedding a sequence.
class SentenceEncoder {
 public:
  SentenceEncoder(std::shared_ptr<const Encoder> encoder, SentenceHead head);

  const Encoder& encoder() const { return *encoder_; }
  size_t embedding_dimension() const { return head_.embedding_dimension(); }

  // out: (batch.size(), embedding_dimension)
  void forward(const Batch& batch, size_t pooling_start, int num_threads,
               const StopCheck& stop_check, Matrix out) const;

 private:
  std::shared_ptr<const Encoder> encoder_;
  SentenceHead head_;
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <variant>

#include "layers/attention/multihead_attention.h"
#include "layers/parts/experts.h"
#include "layers/parts/feed_forward.h"

namespace simdformer {

// For each sublayer f, with alpha = 1 except for DeepNorm (Wang et al. 2022), and without the
// residual term if residual is false:
//   post-norm: y = norm(alpha x + f(x))
//   pre-norm:  y = alpha x + f(norm(x))    (Xiong et al. 2020)
// With an output norm, output_norm(f(..)) replaces f(..); if output_residual is set,
// output_norm(alpha x + f(..)) replaces the sum.
struct SublayerOptions {
  bool norm_first = false;
  bool residual = true;
  bool output_residual = false;
  float alpha = 1.0f;
};

// What a layer applies to each row after attention. Not null.
using PositionWise =
    std::variant<std::shared_ptr<const FeedForward>, std::shared_ptr<const Experts>>;

// Self-attention, cross-attention if there is a memory, and feed-forward: the encoder layer and the
// decoder layer of Vaswani et al. 2017, section 3.1.
class TransformerLayer {
 public:
  struct Parts {
    std::shared_ptr<const MultiheadAttention> self_attention;
    std::shared_ptr<const MultiheadAttention> cross_attention;  // null: an encoder layer
    PositionWise feed_forward;
    std::shared_ptr<const Norm> self_norm;  // null: none
    std::shared_ptr<const Norm> cross_norm;
    std::shared_ptr<const Norm> feed_forward_norm;
    std::shared_ptr<const Norm> self_output_norm;  // null: none
    std::shared_ptr<const Norm> cross_output_norm;
    std::shared_ptr<const Norm> feed_forward_output_norm;
  };
  // The size of the largest block of a workspace.
  struct Sizes {
    size_t tokens = 0;
    size_t max_keys = 0;
    size_t memory_tokens = 0;
    size_t max_memory = 0;
  };
  // The common arguments of all layers of a call.
  struct Call {
    const AttentionPattern& self;
    const AttentionPattern& cross;
    ConstMatrix memory;  // of the block; no rows if cross_cache already has its keys
    KVCache* self_cache = nullptr;
    KVCache* cross_cache = nullptr;
  };
  // The head mask of one layer, and the places for its requested results. Null: not requested.
  struct Taps {
    const Positions* position = nullptr;    // instead of the attention's own
    Strided<const float> head_mask = {};    // (sequence, head): of self-attention
    Strided<float> self_weights = {};       // (sequence, index of head, query, key)
    const int32_t* weights_head = nullptr;  // (num_heads): a head's index, -1: none; null: itself
    Strided<float> cross_weights = {};      // (sequence, head, query, key)
    Matrix head_outputs = {};               // (tokens of the batch, context_dim), packed
  };

  TransformerLayer(Parts parts, const SublayerOptions& options);

  const Parts& parts() const { return parts_; }
  const SublayerOptions& options() const { return options_; }
  size_t hidden_size() const {
    return std::visit([](const auto& part) { return part->hidden_size(); }, parts_.feed_forward);
  }
  // The maximum length of a sequence for its positions; 0: no limit.
  size_t max_length() const;
  const MultiheadAttention& self_attention() const { return *parts_.self_attention; }
  const MultiheadAttention* cross_attention() const { return parts_.cross_attention.get(); }

  void reserve(Scratch scratch, const Sizes& sizes, const Positions* position = nullptr) const;

  // index: the layer's number in the caches. x, y: (block.tokens, hidden_size), no overlap; x
  // contains the input. Both are overwritten. Returns the one with the output.
  Matrix forward(Team& team, const Call& call, size_t index, const Taps& taps, const Block& block,
                 Matrix x, Scratch scratch, Matrix y) const;

 private:
  // The norms of a sublayer, or null.
  struct Norms {
    const Norm* around;
    const Norm* output;
  };

  template <typename Sub>
  void add_sublayer(Team& team, const Norms& norms, ConstMatrix x, Scratch scratch, Matrix y,
                    Sub&& sublayer) const;
  ConstMatrix scaled(Team& team, ConstMatrix x, Scratch scratch) const;

  Parts parts_;
  SublayerOptions options_;
};

}  // namespace simdformer

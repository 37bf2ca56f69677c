// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "layers/attention/multihead_attention.h"
#include "layers/parts/feed_forward.h"

namespace simdformer {

// Around each sublayer f, with alpha = 1 but for DeepNorm (Wang et al. 2022) and without the
// residual term if residual is false:
//   post-norm: y = norm(alpha x + f(x))
//   pre-norm:  y = alpha x + f(norm(x))    (Xiong et al. 2020)
// With a norm of f's output, output_norm(f(..)) stands for f(..), or output_norm(alpha x + f(..))
// if output_residual says so.
struct SublayerOptions {
  bool norm_first = false;
  bool residual = true;
  bool output_residual = false;
  float alpha = 1.0f;
};

// Self-attention, cross-attention to a memory if there is one, feed-forward: the encoder and the
// decoder layer of Vaswani et al. 2017, section 3.1.
class TransformerLayer {
 public:
  struct Parts {
    std::shared_ptr<const MultiheadAttention> self_attention;
    std::shared_ptr<const MultiheadAttention> cross_attention;  // null: an encoder's layer
    std::shared_ptr<const FeedForward> feed_forward;
    std::shared_ptr<const Norm> self_norm;  // null: none
    std::shared_ptr<const Norm> cross_norm;
    std::shared_ptr<const Norm> feed_forward_norm;
    std::shared_ptr<const Norm> self_output_norm;  // null: none
    std::shared_ptr<const Norm> cross_output_norm;
    std::shared_ptr<const Norm> feed_forward_output_norm;
  };
  // The largest block that a workspace is made for.
  struct Sizes {
    size_t tokens = 0;
    size_t max_keys = 0;
    size_t memory_tokens = 0;
    size_t max_memory = 0;
  };
  // What the layers of a call have in common.
  struct Call {
    const AttentionPattern& self;
    const AttentionPattern& cross;
    ConstMatrix memory;  // the block's; no rows if cross_cache holds its keys already
    KVCache* self_cache = nullptr;
    KVCache* cross_cache = nullptr;
  };
  // Where one layer leaves what is asked for besides its output, and its head mask. Absent: null.
  struct Taps {
    const Positions* position = nullptr;    // in place of the attention's own
    Strided<const float> head_mask = {};    // (sequence, head): of self-attention
    Strided<float> self_weights = {};       // (sequence, place of head, query, key)
    const int32_t* weights_head = nullptr;  // (num_heads): a head's place, -1: none; null: itself
    Strided<float> cross_weights = {};      // (sequence, head, query, key)
    Matrix head_outputs = {};               // (tokens of the batch, context_dim), packed
  };

  TransformerLayer(Parts parts, const SublayerOptions& options);

  size_t hidden_size() const { return parts_.feed_forward->hidden_size(); }
  // The longest sequence that its positions serve; 0: any.
  size_t max_length() const;
  const MultiheadAttention& self_attention() const { return *parts_.self_attention; }
  const MultiheadAttention* cross_attention() const { return parts_.cross_attention.get(); }

  void reserve(Scratch scratch, const Sizes& sizes, const Positions* position = nullptr) const;

  // The layer with this number in the caches. x, y: (block.tokens, hidden_size), no overlap; x
  // holds the input. Both are overwritten; returns the one that holds the output.
  Matrix forward(Team& team, const Call& call, size_t index, const Taps& taps, const Block& block,
                 Matrix x, Scratch scratch, Matrix y) const;

 private:
  // The norms of a sublayer; null: none.
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

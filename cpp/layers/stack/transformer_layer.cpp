// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/transformer_layer.h"

#include "base/check.h"

namespace simdformer {

TransformerLayer::TransformerLayer(Parts parts, const SublayerOptions& options)
    : parts_(std::move(parts)), options_(options) {
  const auto check_size = [&](const char* part, size_t size) {
    check(size == hidden_size(), "TransformerLayer: ", part, " has size ", size,
          ", feed_forward has hidden_size ", hidden_size());
  };
  const auto check_attention = [&](const char* part, const MultiheadAttention& attention) {
    check_size(part, attention.embed_dim());
    check_size(part, attention.query_dim());
    check(attention.num_extra_keys() == 0, "TransformerLayer: ", part, " has extra keys");
  };
  check_attention("self_attention", *parts_.self_attention);
  if (parts_.cross_attention) check_attention("cross_attention", *parts_.cross_attention);
  if (parts_.self_norm) check_size("self_norm", parts_.self_norm->size());
  if (parts_.cross_norm) check_size("cross_norm", parts_.cross_norm->size());
  if (parts_.feed_forward_norm) check_size("feed_forward_norm", parts_.feed_forward_norm->size());
}

size_t TransformerLayer::max_length() const {
  const Positions* position = parts_.self_attention->position();
  return position ? position->max_length : 0;
}

void TransformerLayer::reserve(Scratch scratch, const Sizes& sizes,
                               const Positions* position) const {
  const size_t tokens = sizes.tokens;
  parts_.self_attention->reserve(scratch, tokens, tokens, sizes.max_keys, position);
  if (parts_.cross_attention) {
    parts_.cross_attention->reserve(scratch, tokens, sizes.memory_tokens, sizes.max_memory);
  }
  parts_.feed_forward->reserve(scratch, tokens);
  if (options_.norm_first) reserve_matrix(scratch.block.normed, tokens, hidden_size());
  if (options_.alpha != 1.0f) reserve_matrix(scratch.block.residual, tokens, hidden_size());
}

ConstMatrix TransformerLayer::scaled(Team& team, ConstMatrix x, Scratch scratch) const {
  if (options_.alpha == 1.0f) return x;
  const Matrix y = reserve_matrix(scratch.block.residual, x.rows, x.cols);
  team.for_each(x.rows, [&](size_t i) {
    for (size_t j = 0; j < x.cols; ++j) y.row(i)[j] = options_.alpha * x.row(i)[j];
  });
  return y;
}

// sublayer(input, epilogue) computes y = epilogue(f(input)).
template <typename Sub>
void TransformerLayer::add_sublayer(Team& team, const Norm* norm, ConstMatrix x, Scratch scratch,
                                    Matrix y, Sub&& sublayer) const {
  ConstMatrix input = x;
  if (norm && options_.norm_first) {
    const Matrix normed = reserve_matrix(scratch.block.normed, x.rows, x.cols);
    norm->forward(team, x, normed);
    input = normed;
  }
  Epilogue epilogue;
  if (options_.residual) epilogue.residual = scaled(team, x, scratch);
  const bool norm_last = norm && !options_.norm_first;
  if (norm_last) epilogue.norm = norm->fused();
  sublayer(input, epilogue);
  if (norm_last && !epilogue.norm) norm->forward(team, y, y);
}

Matrix TransformerLayer::forward(Team& team, const Call& call, size_t index, const Taps& taps,
                                 const Block& block, Matrix x, Scratch scratch, Matrix y) const {
  const auto attend = [&](const MultiheadAttention& attention, const AttentionPattern& pattern,
                          MultiheadAttention::Inputs inputs, const Norm* norm) {
    inputs.cache_layer = index;
    add_sublayer(team, norm, x, scratch, y, [&](ConstMatrix input, const Epilogue& epilogue) {
      inputs.query = input;
      if (&attention == parts_.self_attention.get()) inputs.key = inputs.value = input;
      attention.forward(team, pattern, block, inputs, scratch, epilogue, y);
    });
    std::swap(x, y);
  };
  attend(*parts_.self_attention, call.self,
         {.query = {},
          .position = taps.position,
          .cache = call.self_cache,
          .head_mask = taps.head_mask,
          .weights = taps.self_weights,
          .weights_head = taps.weights_head,
          .head_outputs = taps.head_outputs},
         parts_.self_norm.get());
  if (parts_.cross_attention) {
    attend(*parts_.cross_attention, call.cross,
           {.query = {},
            .key = call.memory,
            .value = call.memory,
            .cache = call.cross_cache,
            .weights = taps.cross_weights},
           parts_.cross_norm.get());
  }
  add_sublayer(team, parts_.feed_forward_norm.get(), x, scratch, y,
               [&](ConstMatrix input, const Epilogue& epilogue) {
                 parts_.feed_forward->forward(team, input, epilogue, scratch, y);
               });
  return y;
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/transformer_layer.h"

#include "base/check.h"

namespace simdformer {
namespace {

// y += x for each row.
void add_rows(Team& team, ConstMatrix x, Matrix y) {
  team.for_each(y.rows, [&](size_t i) {
    for (size_t j = 0; j < y.cols; ++j) y.row(i)[j] += x.row(i)[j];
  });
}

}  // namespace

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
  const auto check_norm = [&](const char* part, const std::shared_ptr<const Norm>& norm) {
    if (norm) check_size(part, norm->size());
  };
  check_norm("self_norm", parts_.self_norm);
  check_norm("cross_norm", parts_.cross_norm);
  check_norm("feed_forward_norm", parts_.feed_forward_norm);
  check_norm("self_output_norm", parts_.self_output_norm);
  check_norm("cross_output_norm", parts_.cross_output_norm);
  check_norm("feed_forward_output_norm", parts_.feed_forward_output_norm);
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
  std::visit([&](const auto& part) { part->reserve(scratch, tokens); }, parts_.feed_forward);
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
void TransformerLayer::add_sublayer(Team& team, const Norms& norms, ConstMatrix x, Scratch scratch,
                                    Matrix y, Sub&& sublayer) const {
  const Norm* first = options_.norm_first ? norms.around : nullptr;
  const Norm* last = options_.norm_first ? nullptr : norms.around;
  ConstMatrix input = x;
  if (first) {
    const Matrix normed = reserve_matrix(scratch.block.normed, x.rows, x.cols);
    first->forward(team, x, normed);
    input = normed;
  }
  const ConstMatrix residual = options_.residual ? scaled(team, x, scratch) : ConstMatrix{};
  const Norm* behind = norms.output ? norms.output : last;
  Epilogue epilogue;
  if (!norms.output || options_.output_residual) epilogue.residual = residual;
  if (behind) epilogue.norm = behind->fused();
  sublayer(input, epilogue);
  if (behind && !epilogue.norm) behind->forward(team, y, y);
  if (!norms.output) return;
  if (residual.data) add_rows(team, residual, y);
  if (last) last->forward(team, y, y);
}

Matrix TransformerLayer::forward(Team& team, const Call& call, size_t index, const Taps& taps,
                                 const Block& block, Matrix x, Scratch scratch, Matrix y) const {
  const auto attend = [&](const MultiheadAttention& attention, const AttentionPattern& pattern,
                          MultiheadAttention::Inputs inputs, const Norms& norms) {
    inputs.cache_layer = index;
    add_sublayer(team, norms, x, scratch, y, [&](ConstMatrix input, const Epilogue& epilogue) {
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
         {parts_.self_norm.get(), parts_.self_output_norm.get()});
  if (parts_.cross_attention) {
    attend(*parts_.cross_attention, call.cross,
           {.query = {},
            .key = call.memory,
            .value = call.memory,
            .cache = call.cross_cache,
            .weights = taps.cross_weights},
           {parts_.cross_norm.get(), parts_.cross_output_norm.get()});
  }
  const Norms norms{parts_.feed_forward_norm.get(), parts_.feed_forward_output_norm.get()};
  add_sublayer(team, norms, x, scratch, y, [&](ConstMatrix input, const Epilogue& epilogue) {
    std::visit([&](const auto& part) { part->forward(team, input, epilogue, scratch, y); },
               parts_.feed_forward);
  });
  return y;
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The fields of the parts of a model, in the order of the file: one list for Writer and Reader.
#pragma once

#include <concepts>
#include <type_traits>

#include "layers/stack/transformer_layer.h"
#include "model_file/model.h"

namespace simdformer::model_file {

// The number of an enum's value in a file is its place here.
template <typename Enum>
struct Codes;
template <>
struct Codes<Activation> {
  static constexpr Activation kAll[] = {
      Activation::kIdentity, Activation::kGelu,      Activation::kGeluTanh, Activation::kRelu,
      Activation::kSilu,     Activation::kQuickGelu, Activation::kTanh,     Activation::kSigmoid};
};
template <>
struct Codes<Score> {
  static constexpr Score kAll[] = {Score::kDot, Score::kAdditive, Score::kSquaredDistance};
};
template <>
struct Codes<Pooling> {
  static constexpr Pooling kAll[] = {Pooling::kCls,          Pooling::kMax,
                                     Pooling::kMean,         Pooling::kMeanSqrtLen,
                                     Pooling::kWeightedMean, Pooling::kLastToken};
};

template <typename T, typename U>
concept Maybe = std::same_as<std::remove_const_t<T>, U>;

template <typename Archive, Maybe<Dense> T>
void fields(Archive& archive, T& x) {
  archive(x.linear, x.activation, x.residual, x.norm);
}

template <typename Archive, Maybe<RelativeEmbeddings> T>
void fields(Archive& archive, T& x) {
  archive(x.query_tables, x.key_tables, x.value_tables, x.content_bias, x.position_bias, x.rows,
          x.center);
}

template <typename Archive, Maybe<Positions> T>
void fields(Archive& archive, T& x) {
  archive(x.relative, x.relative_heads, x.relative_center, x.cos, x.sin, x.pairs, x.interleaved,
          x.embeddings);
}

template <typename Archive, Maybe<AttentionOptions> T>
void fields(Archive& archive, T& x) {
  archive(x.num_heads, x.num_kv_heads, x.score, x.softmax_scale, x.softcap, x.masked_value,
          x.window_left, x.window_right, x.normalize, x.key_norm_bias);
}

// A layer's self-attention, which has no extra keys.
template <typename Archive, Maybe<MultiheadAttention::Parts> T>
void fields(Archive& archive, T& x) {
  archive(x.projections, x.output, x.additive_weight, x.head_scales, x.query_norm, x.key_norm,
          x.position);
}

template <typename Archive, Maybe<SublayerOptions> T>
void fields(Archive& archive, T& x) {
  archive(x.norm_first, x.residual, x.output_residual, x.alpha);
}

template <typename Archive, Maybe<Experts::Parts> T>
void fields(Archive& archive, T& x) {
  archive(x.router, x.experts, x.bias, x.top_k);
}

// An encoder's layer.
template <typename Archive, Maybe<TransformerLayer::Parts> T>
void fields(Archive& archive, T& x) {
  archive(x.self_attention, x.feed_forward, x.self_norm, x.feed_forward_norm, x.self_output_norm,
          x.feed_forward_output_norm);
}

template <typename Archive, Maybe<Output> T>
void fields(Archive& archive, T& x) {
  archive(x.columns, x.activation);
}

}  // namespace simdformer::model_file

// SPDX-License-Identifier: Apache-2.0
// The Python names of enum values.
#pragma once

#include <utility>

#include "kernels/kernels.h"

namespace simdformer::bindings {

inline constexpr std::pair<const char*, Activation> kActivations[] = {
    {"identity", Activation::kIdentity},  {"gelu", Activation::kGelu},
    {"gelu_tanh", Activation::kGeluTanh}, {"relu", Activation::kRelu},
    {"silu", Activation::kSilu},          {"quick_gelu", Activation::kQuickGelu},
    {"tanh", Activation::kTanh},          {"sigmoid", Activation::kSigmoid},
};

inline constexpr std::pair<const char*, Score> kScores[] = {
    {"dot", Score::kDot},
    {"additive", Score::kAdditive},
    {"squared_distance", Score::kSquaredDistance},
};

inline constexpr std::pair<const char*, WeightsStage> kWeightsStages[] = {
    {"scaled", WeightsStage::kScaled},
    {"capped", WeightsStage::kCapped},
    {"biased", WeightsStage::kBiased},
    {"softmax", WeightsStage::kSoftmax},
};

inline constexpr std::pair<const char*, Fold> kFolds[] = {
    {"max", Fold::kMax},
    {"sum_log1p", Fold::kSumLog1p},
    {"sum_log1p_twice", Fold::kSumLog1pTwice},
};

// The names of sentence-transformers.
inline constexpr std::pair<const char*, Pooling> kPoolings[] = {
    {"cls", Pooling::kCls},
    {"max", Pooling::kMax},
    {"mean", Pooling::kMean},
    {"mean_sqrt_len_tokens", Pooling::kMeanSqrtLen},
    {"weightedmean", Pooling::kWeightedMean},
    {"lasttoken", Pooling::kLastToken},
};

}  // namespace simdformer::bindings

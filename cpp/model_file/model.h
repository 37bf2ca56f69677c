// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "layers/parts/pooling.h"
#include "layers/parts/vocabulary_head.h"
#include "layers/stack/transformer_stack.h"

namespace simdformer::model_file {

// What becomes of the rows of a head.
struct Output {
  size_t columns = 0;  // that are kept
  Activation activation = Activation::kIdentity;
};

// A model that gives each sequence a row: a stack with embeddings, one of the two heads, an output.
struct Model {
  std::shared_ptr<const TransformerStack> stack;
  std::optional<PoolingHead> pooling;
  std::optional<VocabularyHead> vocabulary;
  Output output;
};

// The same, of somebody's parts.
struct ModelView {
  const TransformerStack& stack;
  const PoolingHead* pooling = nullptr;
  const VocabularyHead* vocabulary = nullptr;
  Output output = {};
};

}  // namespace simdformer::model_file

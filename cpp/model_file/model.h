// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "layers/parts/pooling.h"
#include "layers/parts/vocabulary_head.h"
#include "layers/stack/transformer_stack.h"

namespace simdformer::model_file {

// How the rows of a head are processed.
struct Output {
  size_t columns = 0;  // number kept
  Activation activation = Activation::kIdentity;
};

// A model that returns a row for each sequence: a stack with embeddings, one of two heads, Output.
struct Model {
  std::shared_ptr<const TransformerStack> stack;
  std::optional<PoolingHead> pooling;
  std::optional<VocabularyHead> vocabulary;
  Output output;
};

// The same with parts that belong to others.
struct ModelView {
  const TransformerStack& stack;
  const PoolingHead* pooling = nullptr;
  const VocabularyHead* vocabulary = nullptr;
  Output output = {};
};

}  // namespace simdformer::model_file

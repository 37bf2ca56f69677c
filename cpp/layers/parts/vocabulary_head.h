// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "layers/parts/pooling.h"
#include "layers/parts/sequence_rows.h"
#include "layers/parts/token_fold.h"
#include "layers/parts/workspace.h"

namespace simdformer {

// A sequence's row over the vocabulary, as in SPLADE (Formal et al. 2021, arXiv:2109.10086): the
// maximum, or the sum, over its tokens of log(1 + max(0, logit)), where logit =
// vocabulary(transform(x)) + bias. Logits are not stored.
class VocabularyHead {
 public:
  // logarithms: how often the logarithm is applied, 1 or 2.
  VocabularyHead(std::optional<Dense> transform, std::shared_ptr<const Linear> vocabulary,
                 Buffer<float> bias, bool sums, int logarithms);

  const std::optional<Dense>& transform() const { return transform_; }
  const std::shared_ptr<const Linear>& vocabulary() const { return vocabulary_; }
  const Buffer<float>& bias() const { return bias_; }
  bool sums() const { return sums_; }
  int logarithms() const { return logarithms_; }
  size_t in_features() const;
  size_t out_features() const { return vocabulary_->out_features(); }

  void reserve(Scratch scratch, size_t tokens) const;
  // x: the rows of consecutive sequences with the offsets cu; out: (cu.size() - 1, out_features)
  void forward(Team& team, ConstMatrix x, std::span<const int32_t> cu, Scratch scratch,
               Matrix out) const;

 private:
  void finish(float* row, size_t columns) const;

  std::optional<Dense> transform_;
  std::shared_ptr<const Linear> vocabulary_;
  Buffer<float> bias_;
  bool sums_;
  int logarithms_;
  TokenFold fold_;
};

}  // namespace simdformer

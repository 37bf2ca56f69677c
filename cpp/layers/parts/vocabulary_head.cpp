// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/vocabulary_head.h"

#include <utility>

#include "base/check.h"

namespace simdformer {
namespace {

Fold fold_of(bool sums, int logarithms) {
  if (!sums) return Fold::kMax;
  return logarithms == 1 ? Fold::kSumLog1p : Fold::kSumLog1pTwice;
}

}  // namespace

VocabularyHead::VocabularyHead(std::optional<Dense> transform,
                               std::shared_ptr<const Linear> vocabulary, Buffer<float> bias,
                               bool sums, int logarithms)
    : transform_(std::move(transform)),
      vocabulary_(std::move(vocabulary)),
      bias_(std::move(bias)),
      sums_(sums),
      logarithms_(logarithms),
      fold_(*vocabulary_, fold_of(sums, logarithms), bias_.data()) {
  check(logarithms == 1 || logarithms == 2, "VocabularyHead: logarithms must be 1 or 2, got ",
        logarithms);
  check(bias_.size() == 0 || bias_.size() == out_features(), "VocabularyHead: bias has ",
        bias_.size(), " elements, vocabulary gives ", out_features());
  if (!transform_) return;
  const size_t width = transform_->linear->out_features();
  check(width == vocabulary_->in_features(), "VocabularyHead: transform gives ", width,
        " features, vocabulary takes ", vocabulary_->in_features());
  check(!transform_->residual, "VocabularyHead: transform has a residual");
  check(!transform_->norm || transform_->norm->size() == width,
        "VocabularyHead: transform's norm has size ",
        transform_->norm ? transform_->norm->size() : 0, ", it gives ", width, " features");
}

size_t VocabularyHead::in_features() const {
  return transform_ ? transform_->linear->in_features() : vocabulary_->in_features();
}

void VocabularyHead::reserve(Scratch scratch, size_t tokens) const {
  if (transform_) reserve_matrix(scratch.block.last_rows, tokens, vocabulary_->in_features());
  for (MemberScratch& member : scratch.members) member.pooled.reserve(fold_.scratch_size());
}

// The logarithm is monotonic, so the largest value is that of the largest logit.
void VocabularyHead::finish(float* row, size_t columns) const {
  if (sums_) return;
  const Kernels& kernels = vocabulary_->kernels();
  kernels.activation(Activation::kRelu, columns, row, row);
  for (int i = 0; i < logarithms_; ++i) kernels.log1p(columns, row, row);
}

void VocabularyHead::forward(Team& team, ConstMatrix x, std::span<const int32_t> cu,
                             Scratch scratch, Matrix out) const {
  if (transform_) {
    const Matrix y = reserve_matrix(scratch.block.last_rows, x.rows, vocabulary_->in_features());
    transform_->linear->forward(
        team, x, y, {.activation = transform_->activation, .norm = transform_->norm.get()});
    x = y;
  }
  team.for_each(fold_.num_chunks(), [&](size_t chunk) {
    fold_.forward(x, cu, chunk, scratch.members[team.rank()].pooled.data(), out);
    const size_t column = fold_.first_column(chunk);
    const size_t columns = fold_.first_column(chunk + 1) - column;
    for (size_t s = 0; s < out.rows; ++s) finish(out.row(s) + column, columns);
  });
}

}  // namespace simdformer

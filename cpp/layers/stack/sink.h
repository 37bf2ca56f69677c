// SPDX-License-Identifier: Apache-2.0
// Processes the last hidden states of a stack.
#pragma once

#include "layers/parts/pooling.h"
#include "layers/parts/sequence_rows.h"
#include "layers/parts/vocabulary_head.h"
#include "layers/parts/workspace.h"

namespace simdformer {

class Sink {
 public:
  virtual ~Sink() = default;
  // Reserves scratch for blocks of up to this number of tokens.
  virtual void reserve(Scratch scratch, size_t tokens) const = 0;
  // x: (block.tokens, hidden_size)
  virtual void take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) = 0;
};

// Copies the rows. Rows after a sequence's length, up to padded_length, become 0.
class RowsSink final : public Sink {
 public:
  RowsSink(std::span<const int32_t> cu_seqlens, SequenceRows<float> out, size_t padded_length)
      : cu_seqlens_(cu_seqlens), out_(std::move(out)), padded_length_(padded_length) {}
  void reserve(Scratch, size_t) const override {}
  void take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) override;

 private:
  std::span<const int32_t> cu_seqlens_;
  SequenceRows<float> out_;
  size_t padded_length_;
};

// One vector per sequence. out: (batch, embedding_dimension).
class PooledSink final : public Sink {
 public:
  PooledSink(std::span<const int32_t> cu_seqlens, const PoolingHead& head, size_t pooling_start,
             Matrix out)
      : cu_seqlens_(cu_seqlens), head_(head), pooling_start_(pooling_start), out_(out) {}
  void reserve(Scratch scratch, size_t tokens) const override;
  void take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) override;

 private:
  std::span<const int32_t> cu_seqlens_;
  const PoolingHead& head_;
  size_t pooling_start_;
  Matrix out_;
};

// One row over the vocabulary per sequence. out: (batch, head.out_features()).
class VocabularySink final : public Sink {
 public:
  VocabularySink(std::span<const int32_t> cu_seqlens, const VocabularyHead& head, Matrix out)
      : cu_seqlens_(cu_seqlens), head_(head), out_(out) {}
  void reserve(Scratch scratch, size_t tokens) const override { head_.reserve(scratch, tokens); }
  void take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) override;

 private:
  std::span<const int32_t> cu_seqlens_;
  const VocabularyHead& head_;
  Matrix out_;
};

// lm_head(x) of all tokens, out: (total_tokens, vocab_size), or only of each sequence's last token,
// out: (batch, vocab_size); then sequences must not be empty.
class LogitsSink final : public Sink {
 public:
  LogitsSink(std::span<const int32_t> cu_seqlens, const Linear& lm_head, bool last_only, Matrix out)
      : cu_seqlens_(cu_seqlens), lm_head_(lm_head), last_only_(last_only), out_(out) {}
  void reserve(Scratch scratch, size_t tokens) const override;
  void take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) override;

 private:
  std::span<const int32_t> cu_seqlens_;
  const Linear& lm_head_;
  bool last_only_;
  Matrix out_;
};

}  // namespace simdformer

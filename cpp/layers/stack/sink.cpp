// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/sink.h"

#include <algorithm>

namespace simdformer {

void RowsSink::take(Team& team, const Block& block, ConstMatrix x, Scratch) {
  scatter(team, x, cu_seqlens_, block, padded_length_, out_);
}

void PooledSink::reserve(Scratch scratch, size_t) const {
  for (MemberScratch& member : scratch.members) member.pooled.reserve(head_.scratch_size());
}

void PooledSink::take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) {
  team.for_each(block.last_sequence - block.first_sequence, [&](size_t i) {
    const size_t s = block.first_sequence + i;
    const auto row = static_cast<size_t>(cu_seqlens_[s]) - block.first_token;
    head_.forward(x.slice(row, sequence_length(cu_seqlens_, s)), pooling_start_,
                  scratch.members[team.rank()].pooled.data(), out_.row(s));
  });
}

void VocabularySink::take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) {
  const size_t sequences = block.last_sequence - block.first_sequence;
  head_.forward(team, x, cu_seqlens_.subspan(block.first_sequence, sequences + 1), scratch,
                out_.slice(block.first_sequence, sequences));
}

void LogitsSink::reserve(Scratch scratch, size_t tokens) const {
  if (last_only_) reserve_matrix(scratch.block.last_rows, tokens, lm_head_.in_features());
}

void LogitsSink::take(Team& team, const Block& block, ConstMatrix x, Scratch scratch) {
  if (!last_only_) {
    lm_head_.forward(team, x, out_.slice(block.first_token, x.rows));
    return;
  }
  const size_t sequences = block.last_sequence - block.first_sequence;
  const Matrix last = reserve_matrix(scratch.block.last_rows, sequences, x.cols);
  team.for_each(sequences, [&](size_t i) {
    const auto end = static_cast<size_t>(cu_seqlens_[block.first_sequence + i + 1]);
    std::copy_n(x.row(end - 1 - block.first_token), x.cols, last.row(i));
  });
  lm_head_.forward(team, last, out_.slice(block.first_sequence, sequences));
}

}  // namespace simdformer

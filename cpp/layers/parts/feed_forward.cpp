// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/feed_forward.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {
FeedForward::FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
                         Activation activation, std::shared_ptr<const Linear> gate)
    : up_(std::move(up)), down_(std::move(down)), gate_(std::move(gate)), activation_(activation) {
  check(up_->out_features() == down_->in_features(), "FeedForward: up gives ", up_->out_features(),
        " features, down takes ", down_->in_features());
  check(up_->in_features() == down_->out_features(), "FeedForward: up takes ", up_->in_features(),
        " features, down gives ", down_->out_features());
  check(!gate_ || (gate_->in_features() == up_->in_features() &&
                   gate_->out_features() == up_->out_features()),
        "FeedForward: gate must map ", up_->in_features(), " -> ", up_->out_features(),
        " as up does");
}

// Panels of the inner layer worked on at once: 128 rows x 768 columns are 384 KB, which L2 holds
// beside a panel of weights and the output; all 1536 of them would not fit.
size_t FeedForward::chunk_panels() const {
  constexpr size_t kChunkColumns = 768;
  static_assert(kChunkColumns % kS8Group == 0, "the inner layer may be quantised by groups");
  return std::max<size_t>(1, kChunkColumns / up_->kernels().gemm_nr);
}

void FeedForward::reserve(Scratch scratch, size_t tokens) const {
  const size_t unsplit = std::min(tokens, kMinRowsPerMember * scratch.members.size());
  const size_t columns = chunk_panels() * up_->kernels().gemm_nr;
  reserve_matrix(scratch.block.intermediate, unsplit, up_->out_features());
  if (gate_) reserve_matrix(scratch.block.gate, unsplit, up_->out_features());
  for (MemberScratch& member : scratch.members) {
    reserve_matrix(member.intermediate, kRowBlock, columns);
    if (gate_) reserve_matrix(member.gate, kRowBlock, columns);
  }
}

void FeedForward::apply_gate(const float* up, size_t n, float* gate) const {
  up_->kernels().gated(activation_, n, gate, up, gate);
}

void FeedForward::forward_rows(ConstMatrix x, const Epilogue& epilogue, MemberScratch& scratch,
                               Matrix y) const {
  const size_t panel = up_->kernels().gemm_nr;
  for (size_t begin = 0; begin < up_->num_panels(); begin += chunk_panels()) {
    const size_t end = std::min(begin + chunk_panels(), up_->num_panels());
    const size_t column = begin * panel;
    const size_t columns = std::min(end * panel, up_->out_features()) - column;
    Matrix inner = reserve_matrix(scratch.intermediate, x.rows, columns);
    if (gate_) {
      const Matrix gate = reserve_matrix(scratch.gate, x.rows, columns);
      gate_->forward_panels(x, begin, end, Activation::kIdentity, gate);
      up_->forward_panels(x, begin, end, Activation::kIdentity, inner);
      for (size_t i = 0; i < x.rows; ++i) apply_gate(inner.row(i), columns, gate.row(i));
      inner = gate;
    } else {
      up_->forward_panels(x, begin, end, activation_, inner);
    }
    down_->forward_chunk(inner, column, y, epilogue);
  }
}

void FeedForward::forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
                          Matrix y) const {
  const size_t blocks = num_row_blocks(x.rows, team.size());
  if (blocks >= team.size()) {
    team.for_each(blocks, [&](size_t i) {
      const size_t row = i * x.rows / blocks;
      const size_t count = (i + 1) * x.rows / blocks - row;
      Epilogue local = epilogue;
      if (local.residual.data) local.residual = local.residual.slice(row, count);
      forward_rows(x.slice(row, count), local, scratch.members[team.rank()], y.slice(row, count));
    });
    return;
  }
  Matrix inner = reserve_matrix(scratch.block.intermediate, x.rows, up_->out_features());
  if (gate_) {
    const Matrix gate = reserve_matrix(scratch.block.gate, x.rows, up_->out_features());
    const Projection projections[] = {{gate_.get(), x, gate}, {up_.get(), x, inner}};
    forward_all(team, projections);
    team.for_each(x.rows, [&](size_t i) { apply_gate(inner.row(i), inner.cols, gate.row(i)); });
    inner = gate;
  } else {
    up_->forward(team, x, inner, {.activation = activation_});
  }
  down_->forward(team, inner, y, epilogue);
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/feed_forward.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {
namespace {

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// Columns of the inner layer per chunk, whole panels: 128 rows x 768 columns are 384 KB, which fit
// into L2 with a panel of weights and the output; all 1536 columns would not fit.
size_t chunk_columns(const Kernels& kernels) {
  constexpr size_t kChunkColumns = 768;
  static_assert(kChunkColumns % kS8Group == 0, "the inner layer may be quantized by groups");
  return std::max<size_t>(1, kChunkColumns / kernels.gemm_nr) * kernels.gemm_nr;
}

// The place of gate and up in a joined matrix, for the chunk that starts at an inner column.
struct JoinedChunk {
  size_t columns;  // of the inner layer
  size_t padded;   // rounded up to whole panels
  size_t gate;     // its first column in the joined matrix; up follows after it

  JoinedChunk(const Kernels& kernels, size_t inner_size, size_t column)
      : columns(std::min(chunk_columns(kernels), inner_size - column)),
        padded(round_up(columns, kernels.gemm_nr)),
        gate(2 * column) {}
  size_t up() const { return gate + padded; }
};

}  // namespace

FeedForward::FeedForward(std::shared_ptr<const Linear> up, std::shared_ptr<const Linear> down,
                         Activation activation, std::shared_ptr<const Linear> gate)
    : up_(std::move(up)), gate_(std::move(gate)), down_(std::move(down)), activation_(activation) {
  check(up_->out_features() == down_->in_features(), "FeedForward: up gives ", up_->out_features(),
        " features, down takes ", down_->in_features());
  check(up_->in_features() == down_->out_features(), "FeedForward: up takes ", up_->in_features(),
        " features, down gives ", down_->out_features());
  check(!gate_ || (gate_->in_features() == up_->in_features() &&
                   gate_->out_features() == up_->out_features()),
        "FeedForward: gate must map ", up_->in_features(), " -> ", up_->out_features(),
        " as up does");
  apart_[0] = {gate_};
  apart_[1] = {up_};
}

FeedForward FeedForward::joined(std::shared_ptr<const Linear> gate_up,
                                std::shared_ptr<const Linear> down, Activation activation) {
  const size_t rows = gated_rows(down->in_features()).size();
  check(gate_up->in_features() == down->out_features() && gate_up->out_features() == rows,
        "FeedForward: gate_up maps ", gate_up->in_features(), " -> ", gate_up->out_features(),
        ", expected ", down->out_features(), " -> ", rows, ", the rows of gated_rows(",
        down->in_features(), ")");
  FeedForward result;
  result.gate_up_ = std::move(gate_up);
  result.down_ = std::move(down);
  result.activation_ = activation;
  return result;
}

std::vector<int32_t> FeedForward::gated_rows(size_t inner_size) {
  const Kernels& kernels = active_kernels();
  std::vector<int32_t> rows;
  for (size_t column = 0; column < inner_size; column += chunk_columns(kernels)) {
    const JoinedChunk chunk(kernels, inner_size, column);
    for (const size_t first : {column, inner_size + column}) {
      for (size_t i = 0; i < chunk.padded; ++i) {
        rows.push_back(i < chunk.columns ? static_cast<int32_t>(first + i) : -1);
      }
    }
  }
  return rows;
}

void FeedForward::reserve(Scratch scratch, size_t tokens) const {
  const size_t unsplit = std::min(tokens, kMinRowsPerMember * scratch.members.size());
  const size_t columns = chunk_columns(down_->kernels());
  const bool gated = gate_ || gate_up_;
  const size_t gate = gate_up_ ? gate_up_->out_features() : inner_size();
  reserve_matrix(scratch.block.intermediate, unsplit, inner_size());
  if (gated) reserve_matrix(scratch.block.gate, unsplit, gate);
  for (MemberScratch& member : scratch.members) {
    if (!gate_up_) reserve_matrix(member.intermediate, kRowBlock, columns);
    if (gated) reserve_matrix(member.gate, kRowBlock, gate_up_ ? 2 * columns : columns);
  }
}

// One chunk of the inner layer, starting at `column`.
Matrix FeedForward::inner_chunk(ConstMatrix x, size_t column, MemberScratch& scratch) const {
  const Kernels& kernels = down_->kernels();
  const size_t nr = kernels.gemm_nr;
  const JoinedChunk chunk(kernels, inner_size(), column);
  const auto apply_gate = [&](const Matrix& gate, const float* up, size_t stride) {
    for (size_t i = 0; i < x.rows; ++i) {
      kernels.gated(activation_, chunk.columns, gate.row(i), up + i * stride, gate.row(i));
    }
  };
  if (gate_up_) {
    const Matrix both = reserve_matrix(scratch.gate, x.rows, 2 * chunk.padded);
    gate_up_->forward_panels(x, chunk.gate / nr, (chunk.gate + 2 * chunk.padded) / nr,
                             Activation::kIdentity, both);
    apply_gate(both, both.data + chunk.padded, both.stride);
    return {both.data, x.rows, chunk.columns, both.stride};
  }
  const size_t begin = column / nr;
  const size_t end = begin + chunk.padded / nr;
  const Matrix inner = reserve_matrix(scratch.intermediate, x.rows, chunk.columns);
  if (!gate_) {
    up_->forward_panels(x, begin, end, activation_, inner);
    return inner;
  }
  const Matrix gate = reserve_matrix(scratch.gate, x.rows, chunk.columns);
  gate_->forward_panels(x, begin, end, Activation::kIdentity, gate);
  up_->forward_panels(x, begin, end, Activation::kIdentity, inner);
  apply_gate(gate, inner.data, inner.stride);
  return gate;
}

void FeedForward::forward_rows(ConstMatrix x, const Epilogue& epilogue, MemberScratch& scratch,
                               Matrix y) const {
  const size_t step = chunk_columns(down_->kernels());
  for (size_t column = 0; column < inner_size(); column += step) {
    down_->forward_chunk(inner_chunk(x, column, scratch), column, y, epilogue);
  }
}

// The whole inner layer for few rows.
Matrix FeedForward::inner_together(Team& team, ConstMatrix x, BlockScratch& scratch) const {
  const Kernels& kernels = down_->kernels();
  const Matrix inner = reserve_matrix(scratch.intermediate, x.rows, inner_size());
  if (gate_up_) {
    const Matrix both = reserve_matrix(scratch.gate, x.rows, gate_up_->out_features());
    gate_up_->forward(team, x, both);
    team.for_each(x.rows, [&](size_t i) {
      const size_t step = chunk_columns(kernels);
      for (size_t column = 0; column < inner_size(); column += step) {
        const JoinedChunk chunk(kernels, inner_size(), column);
        kernels.gated(activation_, chunk.columns, both.row(i) + chunk.gate,
                      both.row(i) + chunk.up(), inner.row(i) + column);
      }
    });
    return inner;
  }
  if (!gate_) {
    up_->forward(team, x, inner, {.activation = activation_});
    return inner;
  }
  const Matrix gate = reserve_matrix(scratch.gate, x.rows, inner_size());
  const GroupProjection projections[] = {{&apart_[0], x, gate}, {&apart_[1], x, inner}};
  forward_all(team, projections);
  team.for_each(x.rows, [&](size_t i) {
    kernels.gated(activation_, inner.cols, gate.row(i), inner.row(i), gate.row(i));
  });
  return gate;
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
  down_->forward(team, inner_together(team, x, scratch.block), y, epilogue);
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/linear.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "layers/parts/panels.h"

namespace simdformer {

size_t num_row_blocks(size_t rows, size_t team_size) {
  if (rows < kMinRowsPerMember * team_size) return 1;
  const size_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  return (blocks + team_size - 1) / team_size * team_size;
}

namespace {

size_t panel_row_blocks(size_t rows, size_t panels, size_t team_size) {
  constexpr size_t kLeastRows = 8;
  const size_t most = std::max<size_t>(1, rows / kLeastRows);
  const auto excess = [&](size_t blocks) {
    const size_t items = blocks * panels;
    return static_cast<double>((items + team_size - 1) / team_size * team_size) /
           static_cast<double>(items);
  };
  const auto idle = [&](size_t blocks) { return blocks * panels < team_size; };
  size_t best = 1;
  for (size_t blocks = 1; blocks <= most && (idle(best) || excess(best) > 1.25); ++blocks) {
    if (idle(best) || excess(blocks) < excess(best)) best = blocks;
  }
  return best;
}

// body(block, begin, end): panels [begin, end) of a block of rows.
template <typename Body>
void for_each_panel_share(Team& team, const PanelShares& split, Body&& body) {
  team.for_each(split.shares, [&](size_t share) {
    const size_t last = split.first_item(share + 1);
    for (size_t item = split.first_item(share); item < last;) {
      const size_t block = item / split.panels;
      const size_t end = std::min(last, (block + 1) * split.panels);
      body(block, item - block * split.panels, end - block * split.panels);
      item = end;
    }
  });
}

}  // namespace

PanelShares::PanelShares(size_t num_rows, size_t num_panels, size_t team_size)
    : rows(num_rows),
      panels(num_panels),
      row_blocks(panel_row_blocks(num_rows, num_panels, team_size)),
      shares(std::min(row_blocks * num_panels, team_size)) {}

Linear::Linear(ConstMatrix weight, const float* bias, Storage storage)
    : kernels_(active_kernels()),
      in_features_(weight.cols),
      out_features_(weight.rows),
      bias_(bias ? weight.rows : 0) {
  check(weight.rows > 0 && weight.cols > 0, "Linear: weight is empty, its shape is (", weight.rows,
        ", ", weight.cols, ")");
  if (storage == Storage::kBfloat16) {
    packed_bf16_ = PackedBf16(kernels_, weight);
  } else {
    packed_ = Buffer<float>(kernels_.packed_size(weight.rows, weight.cols), Use::kReadOften);
    kernels_.pack_weight(out_features_, in_features_, weight.data, weight.stride, 0, num_panels(),
                         packed_.data());
  }
  if (bias) std::copy_n(bias, out_features_, bias_.data());
}

Linear::Linear(const S8Matrix& weight, const float* bias)
    : kernels_(active_kernels()),
      in_features_(weight.cols),
      out_features_(weight.rows),
      packed_s8_(kernels_, weight),
      bias_(bias ? weight.rows : 0) {
  if (bias) std::copy_n(bias, out_features_, bias_.data());
}

void Linear::unpack(Matrix weight) const {
  check(!is_int8(), "Linear: an int8 layer has no float32 weight");
  if (is_bfloat16()) return packed_bf16_.unpack(kernels_, weight);
  for_each_packed(out_features_, in_features_, kernels_.gemm_nr, kernels_.lanes,
                  [&](size_t j, size_t p, size_t at) { weight.row(j)[p] = packed_[at]; });
}

void Linear::unpack_row(size_t j, float* row) const {
  const size_t column = j / kernels_.gemm_nr * kernels_.gemm_nr;
  const size_t width = panel_width(out_features_, kernels_.gemm_nr, kernels_.lanes, column);
  const float* panel = packed_.data() + column * in_features_ + (j - column);
  for (size_t p = 0; p < in_features_; ++p) row[p] = panel[p * width];
}

S8Numbers Linear::unpack_int8() const {
  check(is_int8(), "Linear: the layer is not in int8");
  return packed_s8_.unpack(kernels_, out_features_, in_features_);
}

std::vector<float> Linear::take_inputs() {
  recording_ = false;
  return std::exchange(recorded_, {});
}

// A row is recorded once: it occurs for each chunk of k, in order, and for each range of panels.
void Linear::record(const GemmArgs& args) const {
  if (args.panel_begin > 0) return;
  if (args.k_begin == 0) recorded_.resize(recorded_.size() + args.m * in_features_);
  float* rows = recorded_.data() + recorded_.size() - args.m * in_features_;
  for (size_t i = 0; i < args.m; ++i) {
    std::copy_n(args.a + i * args.lda, args.k, rows + i * in_features_ + args.k_begin);
  }
}

// All products go through this function.
void Linear::gemm(const GemmArgs& args) const {
  if (recording_) record(args);
  if (packed_.size() > 0) return kernels_.gemm(args);
  if (!packed_bf16_.empty()) return packed_bf16_.gemm(kernels_, args);
  kernels_.gemm_s8(args, packed_s8_.view());
}

size_t Linear::num_panels() const { return simdformer::num_panels(kernels_, out_features_); }

GemmArgs Linear::gemm_args(ConstMatrix x, Matrix y, const Epilogue& epilogue) const {
  GemmArgs args;
  args.m = x.rows;
  args.n = out_features_;
  args.k = x.cols;
  args.a = x.data;
  args.lda = x.stride;
  args.packed_weight = packed_.data();
  args.packed_k = in_features_;
  args.panel_end = num_panels();
  args.c = y.data;
  args.ldc = y.stride;
  args.bias = bias_.data();
  args.activation = epilogue.activation;
  args.residual = epilogue.residual.data;
  args.ldr = epilogue.residual.stride;
  if (epilogue.norm) {
    args.norm_weight = epilogue.norm->weight();
    args.norm_bias = epilogue.norm->bias();
    args.norm_eps = epilogue.norm->eps();
  }
  return args;
}

void Linear::forward(Team& team, ConstMatrix x, Matrix y, const Epilogue& epilogue) const {
  const size_t blocks = num_row_blocks(x.rows, team.size());
  if (blocks >= team.size()) {
    team.for_each(blocks, [&](size_t i) {
      const size_t row = i * x.rows / blocks;
      const size_t count = (i + 1) * x.rows / blocks - row;
      Epilogue local = epilogue;
      if (local.residual.data) local.residual = local.residual.slice(row, count);
      forward_rows(x.slice(row, count), y.slice(row, count), local);
    });
    return;
  }
  const PanelShares split(x.rows, num_panels(), team.size());
  for_each_panel_share(team, split, [&](size_t block, size_t begin, size_t end) {
    const size_t row = split.first_row(block, x.rows);
    const size_t rows = split.first_row(block + 1, x.rows) - row;
    Epilogue local = epilogue;
    local.norm = nullptr;  // a row is complete only after the barrier
    if (local.residual.data) local.residual = local.residual.slice(row, rows);
    GemmArgs args = gemm_args(x.slice(row, rows), y.slice(row, rows), local);
    args.panel_begin = begin;
    args.panel_end = end;
    gemm(args);
  });
  if (epilogue.norm) epilogue.norm->forward(team, y, y);
}

void Linear::forward_rows(ConstMatrix x, Matrix y, const Epilogue& epilogue) const {
  gemm(gemm_args(x, y, epilogue));
}

void Linear::forward_panels(ConstMatrix x, size_t begin, size_t end, Activation activation,
                            Matrix y) const {
  GemmArgs args = gemm_args(x, y, {.activation = activation});
  args.c_begin = begin * kernels_.gemm_nr;
  args.panel_begin = begin;
  args.panel_end = end;
  gemm(args);
}

void Linear::forward_chunk(ConstMatrix x, size_t k_begin, Matrix y,
                           const Epilogue& epilogue) const {
  GemmArgs args = gemm_args(x, y, epilogue);
  args.k_begin = k_begin;
  args.accumulate = k_begin > 0;
  args.finish = k_begin + x.cols == in_features_;
  gemm(args);
}

size_t in_features(const LinearGroup& group) { return group.front()->in_features(); }

size_t out_features(const LinearGroup& group) {
  size_t features = 0;
  for (const auto& linear : group) features += linear->out_features();
  return features;
}

bool is_int8(const LinearGroup& group) {
  return std::all_of(group.begin(), group.end(), [](const auto& l) { return l->is_int8(); });
}

namespace {

// Calls body(linear, x, y) for each map of a group.
template <typename Body>
void for_each_linear(const GroupProjection& p, Body&& body) {
  size_t column = 0;
  for (const auto& linear : *p.group) {
    const size_t features = linear->out_features();
    body(*linear, p.x, Matrix{p.y.data + column, p.y.rows, features, p.y.stride});
    column += features;
  }
}

}  // namespace

void forward_all(Team& team, std::span<const GroupProjection> projections) {
  size_t panels = 0;
  size_t fewest_rows = SIZE_MAX;
  bool few_rows = team.size() > 1;
  for (const GroupProjection& p : projections) {
    for (const auto& linear : *p.group) panels += linear->num_panels();
    fewest_rows = std::min(fewest_rows, p.x.rows);
    few_rows = few_rows && num_row_blocks(p.x.rows, team.size()) < team.size();
  }
  if (!few_rows) {
    for (const GroupProjection& p : projections) {
      for_each_linear(
          p, [&](const Linear& linear, ConstMatrix x, Matrix y) { linear.forward(team, x, y); });
    }
    return;
  }
  const PanelShares split(fewest_rows, panels, team.size());
  for_each_panel_share(team, split, [&](size_t block, size_t begin, size_t end) {
    size_t first = 0;
    const auto multiply = [&](const Linear& linear, ConstMatrix x, Matrix y) {
      const size_t count = linear.num_panels();
      const size_t from = std::clamp(begin, first, first + count) - first;
      const size_t to = std::clamp(end, first, first + count) - first;
      const size_t row = split.first_row(block, x.rows);
      const size_t rows = split.first_row(block + 1, x.rows) - row;
      const size_t column = from * linear.kernels().gemm_nr;
      if (from < to) {
        linear.forward_panels(x.slice(row, rows), from, to, Activation::kIdentity,
                              {y.row(row) + column, rows, y.cols, y.stride});
      }
      first += count;
    };
    for (const GroupProjection& p : projections) for_each_linear(p, multiply);
  });
}

void copy_rows(Team& team, ConstMatrix x, Matrix y) {
  team.for_each(x.rows, [&](size_t i) { std::copy_n(x.row(i), x.cols, y.row(i)); });
}

}  // namespace simdformer

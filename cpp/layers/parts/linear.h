// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/parallel.h"
#include "isa/dispatch.h"
#include "layers/parts/norm.h"
#include "layers/parts/packed_bf16.h"
#include "layers/parts/quantized.h"

namespace simdformer {

// Rows that share one sweep over the weights: a block's activations stay in L2.
constexpr size_t kRowBlock = 128;
// With fewer rows than this a member, a team splits columns: sweeping the weights once each would
// cost more than the barriers.
constexpr size_t kMinRowsPerMember = 32;

// Even blocks of at most kRowBlock rows, as many as fill the team or, with few rows, one.
size_t num_row_blocks(size_t rows, size_t team_size);

// What happens to a linear layer's output while it is in cache, in this order.
struct Epilogue {
  Activation activation = Activation::kIdentity;
  ConstMatrix residual = {};
  const LayerNorm* norm = nullptr;
};

// How a Linear keeps weights that are not int8.
enum class Storage { kFloat32, kBfloat16 };

// y = x W^T + b, W packed at construction for the active ISA level, in float32, bfloat16 or int8.
class Linear {
 public:
  // weight: (out_features, in_features); bias: (out_features) or null.
  Linear(ConstMatrix weight, const float* bias, Storage storage = Storage::kFloat32);
  Linear(const S8Matrix& weight, const float* bias);

  size_t in_features() const { return in_features_; }
  size_t out_features() const { return out_features_; }
  size_t num_panels() const;
  const Kernels& kernels() const { return kernels_; }
  bool is_int8() const { return !packed_s8_.empty(); }
  bool is_bfloat16() const { return !packed_bf16_.empty(); }

  // What was packed, in bfloat16 rounded. weight: (out_features, in_features). Not for int8.
  void unpack(Matrix weight) const;
  // The weights of one output, (in_features). For float32 alone.
  void unpack_row(size_t j, float* row) const;
  // For int8 alone.
  S8Numbers unpack_int8() const;
  // (out_features), or empty.
  std::span<const float> bias() const { return {bias_.data(), bias_.size()}; }

  // x: (rows, in_features), y: (rows, out_features); y may be the residual if the activation is the
  // identity and the weights are float32. Split over the team by rows if there are enough, else by
  // columns.
  void forward(Team& team, ConstMatrix x, Matrix y, const Epilogue& epilogue = {}) const;

  // forward on this thread alone.
  void forward_rows(ConstMatrix x, Matrix y, const Epilogue& epilogue) const;

  // Rows on this thread alone: output panels [begin, end), written at y's column 0 on.
  void forward_panels(ConstMatrix x, size_t begin, size_t end, Activation activation,
                      Matrix y) const;

  // Rows on this thread alone, one chunk of in_features: x holds columns [k_begin, k_begin +
  // x.cols). The chunks come in order; the last one applies bias and epilogue. y is not the
  // residual.
  void forward_chunk(ConstMatrix x, size_t k_begin, Matrix y, const Epilogue& epilogue) const;

  // From now on, keeps every row of x. On one thread only.
  void record_inputs() { recording_ = true; }
  // The rows kept, (rows, in_features); no more are.
  std::vector<float> take_inputs();

 private:
  GemmArgs gemm_args(ConstMatrix x, Matrix y, const Epilogue& epilogue) const;
  void gemm(const GemmArgs& args) const;
  void record(const GemmArgs& args) const;

  const Kernels& kernels_;
  size_t in_features_;
  size_t out_features_;
  // Of the three, two are empty.
  Buffer<float> packed_;
  PackedBf16 packed_bf16_;
  PackedS8 packed_s8_;
  Buffer<float> bias_;
  bool recording_ = false;
  mutable std::vector<float> recorded_;
};

// Linear maps of the same rows, their outputs side by side. One, as a rule; several where they are
// stored apart.
using LinearGroup = std::vector<std::shared_ptr<const Linear>>;

size_t in_features(const LinearGroup& group);
size_t out_features(const LinearGroup& group);
bool is_int8(const LinearGroup& group);

// y = [linear(x) for each of the group], y: (x.rows, out_features(*group))
struct GroupProjection {
  const LinearGroup* group = nullptr;
  ConstMatrix x = {};
  Matrix y = {};
};

// Every projection. Few rows split the panels of all of them over the team, with one barrier.
void forward_all(Team& team, std::span<const GroupProjection> projections);

// How a team shares a product of few rows: items, each a panel's columns of a block of rows, go
// round in order. As few row blocks as leave no share with more than a quarter beyond the mean.
struct PanelShares {
  size_t rows;
  size_t panels;
  size_t row_blocks;
  size_t shares;

  PanelShares(size_t rows, size_t panels, size_t team_size);
  size_t first_item(size_t share) const { return share * row_blocks * panels / shares; }
  size_t first_row(size_t block, size_t of) const { return block * of / row_blocks; }
};

// y = x
void copy_rows(Team& team, ConstMatrix x, Matrix y);

}  // namespace simdformer

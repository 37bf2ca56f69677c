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

// Rows that share one pass over the weights: the activations of a block stay in L2.
constexpr size_t kRowBlock = 128;
// With fewer rows per member than this, a team splits columns, because a pass over all weights per
// member would cost more than the barriers.
constexpr size_t kMinRowsPerMember = 32;

// Equal blocks of at most kRowBlock rows, as many as fill the team, or one if there are few rows.
size_t num_row_blocks(size_t rows, size_t team_size);

// The operations on a linear layer's output while it is in cache, in this order.
struct Epilogue {
  Activation activation = Activation::kIdentity;
  ConstMatrix residual = {};
  const LayerNorm* norm = nullptr;
};

// The storage of weights that are not in int8.
enum class Storage { kFloat32, kBfloat16 };

// y = x W^T + b. W is packed in the constructor for the active ISA level, in float32, bfloat16 or
// int8.
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

  // The numbers that were packed, rounded for bfloat16. weight: (out_features, in_features). Not
  // for int8.
  void unpack(Matrix weight) const;
  // The weights of one output, (in_features). Only for float32.
  void unpack_row(size_t j, float* row) const;
  // Only for int8.
  S8Numbers unpack_int8() const;
  // (out_features), or empty.
  std::span<const float> bias() const { return {bias_.data(), bias_.size()}; }

  // x: (rows, in_features), y: (rows, out_features). y may be the residual if the activation is the
  // identity and the weights are float32. The team splits rows if there are enough, else columns.
  void forward(Team& team, ConstMatrix x, Matrix y, const Epilogue& epilogue = {}) const;

  // forward on this thread only.
  void forward_rows(ConstMatrix x, Matrix y, const Epilogue& epilogue) const;

  // Rows on this thread only: output panels [begin, end), written to y starting at column 0.
  void forward_panels(ConstMatrix x, size_t begin, size_t end, Activation activation,
                      Matrix y) const;

  // Rows on this thread only, one chunk of in_features: x contains columns [k_begin, k_begin +
  // x.cols). The chunks must come in order; the last one applies bias and epilogue. y must not be
  // the residual.
  void forward_chunk(ConstMatrix x, size_t k_begin, Matrix y, const Epilogue& epilogue) const;

  // From now on, records all rows of x. Use one thread only.
  void record_inputs() { recording_ = true; }
  // Returns the recorded rows, (rows, in_features), and stops recording.
  std::vector<float> take_inputs();

 private:
  GemmArgs gemm_args(ConstMatrix x, Matrix y, const Epilogue& epilogue) const;
  void gemm(const GemmArgs& args) const;
  void record(const GemmArgs& args) const;

  const Kernels& kernels_;
  size_t in_features_;
  size_t out_features_;
  // Two of these three are empty.
  Buffer<float> packed_;
  PackedBf16 packed_bf16_;
  PackedS8 packed_s8_;
  Buffer<float> bias_;
  bool recording_ = false;
  mutable std::vector<float> recorded_;
};

// Linear maps of the same rows, with adjacent outputs. Usually one; several if they are stored
// separately.
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

// The same for several groups. With few rows, the team splits the panels of all groups, with one
// barrier.
void forward_all(Team& team, std::span<const GroupProjection> projections);

// How a team shares a product with few rows. Items, each a panel's columns for a block of rows, are
// distributed in order. The number of row blocks is the smallest for which no share is more than
// 25% above the mean.
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

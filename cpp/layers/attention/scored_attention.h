// SPDX-License-Identifier: Apache-2.0
// Reduces bilinear, cosine, Euclidean and projected additive scores to one of the kernel's scores:
// by a linear map of rows, by scaling them to unit length, or by adding squared norms of keys.
#pragma once

#include "layers/attention/attention_call.h"
#include "layers/parts/linear.h"

namespace simdformer {

// A strided operand with its extents.
struct Operand {
  Strided<const float> rows;
  size_t batches = 0;
  size_t heads = 0;
  size_t num_rows = 0;
  size_t cols = 0;
};

// The transformation of the rows of q or k before the score.
struct RowTransform {
  std::vector<Linear> projections;  // none, one for all heads, or one a head
  bool normalize = false;           // to unit length

  bool empty() const { return projections.empty() && !normalize; }
  size_t cols(const Operand& x) const {
    return projections.empty() ? x.cols : projections[0].out_features();
  }
};

// A transformed copy of an operand in its own buffer.
class TransformedRows {
 public:
  // Reserves the memory for run. Without a transformation, the result is the operand itself.
  TransformedRows(const Operand& x, const RowTransform& transform);

  const Strided<const float>& rows() const { return result_; }
  void run(Team& team, const Kernels& kernels);

 private:
  void run_block(const Kernels& kernels, size_t batch, size_t head, size_t first, size_t count);

  Operand x_;
  const RowTransform& transform_;
  Buffer<float> buffer_;
  Strided<const float> result_;
};

// bias[b, h, j] = factor[h] |k[b, kv_head(h), j]|^2 + user[b, h, j]: the part of the negated
// squared distance that is not a product of queries and keys. (|q|^2 is the same for all keys, so
// softmax does not depend on it.)
class KeyNormBias {
 public:
  // factors: one for all heads, or num_heads. batches: that of k, or more if user has more.
  KeyNormBias(const Operand& k, size_t batches, size_t num_heads, std::vector<float> factors,
              const Strided<const float>& user);

  const Strided<const float>& bias() const { return result_; }
  void run(Team& team, const Kernels& kernels);

 private:
  Operand k_;
  size_t batches_;
  size_t num_heads_;
  std::vector<float> factors_;
  Strided<const float> user_;
  Buffer<float> buffer_;
  Strided<const float> result_;
};

// An attention call and the transformations that its score needs.
struct ScoredAttention {
  AttentionCall call;  // q and k as given; head_dim is that of the transformed rows
  std::vector<Span> spans;
  Operand q;
  Operand k;
  RowTransform q_transform;
  RowTransform k_transform;
  bool key_norms = false;  // turn a dot product into half the negated squared distance

  void run(int num_threads, const StopCheck& stop_check) const;
};

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/parts/feed_forward.h"
#include "layers/parts/row_shares.h"

namespace simdformer {

// A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538): feed-forwards of which each row
// uses the top_k with the largest probabilities. y = sum of p_e expert_e(x) over them + bias, with
// p = softmax(router(x)) over all experts, and without a normalization over the chosen ones.
class Experts {
 public:
  struct Parts {
    std::shared_ptr<const Linear> router;
    std::vector<std::shared_ptr<const FeedForward>> experts;
    Buffer<float> bias;  // (hidden_size), or empty
    size_t top_k = 1;
  };
  explicit Experts(Parts parts);

  const Parts& parts() const { return parts_; }
  size_t hidden_size() const { return parts_.router->in_features(); }

  // Reserves scratch for blocks of up to this number of tokens.
  void reserve(Scratch scratch, size_t tokens) const;

  // y = epilogue(experts(x)). x, y: (rows, hidden_size); y must not overlap x or the residual.
  void forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
               Matrix y) const;

 private:
  void choose(const float* probabilities, int32_t* chosen) const;
  void sort_by_expert(size_t rows, RoutingScratch& routing) const;
  void run_share(Team& team, ConstMatrix x, RowRange routed, Scratch scratch, Matrix out) const;
  void add_up(size_t row, ConstMatrix probabilities, const RoutingScratch& routing, ConstMatrix out,
              const Epilogue& epilogue, float* y) const;

  Parts parts_;
};

}  // namespace simdformer

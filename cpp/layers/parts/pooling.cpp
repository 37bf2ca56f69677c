// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/pooling.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

PoolingHead::PoolingHead(size_t hidden_size, std::vector<Pooling> pooling, std::vector<Dense> dense,
                         bool normalize)
    : kernels_(active_kernels()),
      hidden_size_(hidden_size),
      pooling_(std::move(pooling)),
      dense_(std::move(dense)),
      normalize_(normalize) {
  check(!pooling_.empty(), "PoolingHead: pooling names no mode");
  size_t width = hidden_size * pooling_.size();
  for (size_t i = 0; i < dense_.size(); ++i) {
    const Linear& linear = *dense_[i].linear;
    check(linear.in_features() == width, "PoolingHead: dense[", i, "] takes ", linear.in_features(),
          " features, the step before gives ", width);
    check(!dense_[i].residual || linear.out_features() == width, "PoolingHead: dense[", i,
          "] has a residual, so it must keep ", width, " features, got ", linear.out_features());
    width = linear.out_features();
    check(!dense_[i].norm || dense_[i].norm->size() == width, "PoolingHead: dense[", i,
          "] has a norm of size ", dense_[i].norm ? dense_[i].norm->size() : 0, ", gives ", width,
          " features");
  }
}

size_t PoolingHead::embedding_dimension() const {
  return dense_.empty() ? hidden_size_ * pooling_.size() : dense_.back().linear->out_features();
}

size_t PoolingHead::widest() const {
  size_t width = hidden_size_ * pooling_.size();
  for (const Dense& dense : dense_) width = std::max(width, dense.linear->out_features());
  return width;
}

size_t PoolingHead::scratch_size() const { return 2 * widest(); }

void PoolingHead::forward(ConstMatrix hidden_states, size_t pooling_start, float* scratch,
                          float* out) const {
  float* current = scratch;
  float* next = scratch + widest();
  std::fill_n(current, hidden_size_ * pooling_.size(), 0.0f);
  if (hidden_states.rows > pooling_start) {
    for (size_t i = 0; i < pooling_.size(); ++i) {
      kernels_.pool(pooling_[i], hidden_states.rows - pooling_start, hidden_size_,
                    hidden_states.row(pooling_start), hidden_states.stride, pooling_start,
                    current + i * hidden_size_);
    }
  }
  for (const Dense& dense : dense_) {
    const Linear& linear = *dense.linear;
    const ConstMatrix x{current, 1, linear.in_features(), linear.in_features()};
    const Matrix y{next, 1, linear.out_features(), linear.out_features()};
    linear.forward_rows(x, y,
                        {.activation = dense.activation,
                         .residual = dense.residual ? x : ConstMatrix{},
                         .norm = dense.norm.get()});
    std::swap(current, next);
  }
  if (normalize_) {
    constexpr float kEps = 1e-12f;  // torch.nn.functional.normalize
    kernels_.l2_normalize(1, embedding_dimension(), kEps, current, current);
  }
  std::copy_n(current, embedding_dimension(), out);
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/norm.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

LayerNorm::LayerNorm(size_t size, const float* weight, const float* bias, float eps)
    : kernels_(active_kernels()), weight_(size), bias_(bias ? size : 0), eps_(eps) {
  check(eps >= 0.0f, "LayerNorm: eps must be >= 0, got ", eps);
  std::copy_n(weight, size, weight_.data());
  if (bias) std::copy_n(bias, size, bias_.data());
}

void LayerNorm::forward(Team& team, ConstMatrix x, Matrix y) const {
  team.for_each(x.rows, [&](size_t row) {
    kernels_.layer_norm({.rows = 1,
                         .cols = size(),
                         .x = x.row(row),
                         .ldx = x.stride,
                         .weight = weight(),
                         .bias = bias(),
                         .eps = eps_,
                         .y = y.row(row),
                         .ldy = y.stride});
  });
}

}  // namespace simdformer

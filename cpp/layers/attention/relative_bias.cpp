// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/relative_bias.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

RelativeBias::RelativeBias(ConstMatrix bias)
    : num_heads_(bias.rows), size_(bias.cols), bias_(bias.rows * bias.cols) {
  check(bias.rows > 0, "RelativeBias: bias has no heads");
  check(bias.cols % 2 == 1, "RelativeBias: bias must have an odd number of distances, got ",
        bias.cols);
  for (size_t head = 0; head < num_heads_; ++head) {
    std::copy_n(bias.row(head), size_, bias_.data() + head * size_);
  }
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/buffer.h"
#include "isa/dispatch.h"

namespace simdformer {

// A weight rounded to bfloat16 (to nearest, ties to even) and packed for one ISA level: in AMX
// tiles if the level and the weight support it, else in panels.
class PackedBf16 {
 public:
  PackedBf16() = default;
  PackedBf16(const Kernels& kernels, ConstMatrix weight);

  bool empty() const { return packed_.size() == 0; }
  // kernels: of the same level. k_begin is a multiple of 32, and c must not be the residual.
  void gemm(const Kernels& kernels, const GemmArgs& args) const;
  // The numbers, widened. weight has the shape that was packed.
  void unpack(const Kernels& kernels, Matrix weight) const;

 private:
  Buffer<uint16_t> packed_;
  bool tiles_ = false;
};

}  // namespace simdformer

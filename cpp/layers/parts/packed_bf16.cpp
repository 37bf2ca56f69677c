// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/packed_bf16.h"

namespace simdformer {

PackedBf16::PackedBf16(const Kernels& kernels, ConstMatrix weight) {
  const Bf16Tiles& tiles = kernels.bf16_tiles;
  if (tiles.gemm) {
    packed_ = Buffer<uint16_t>(tiles.packed_size(weight.rows, weight.cols), Use::kReadOften);
    tiles_ =
        tiles.pack_weight(weight.rows, weight.cols, weight.data, weight.stride, packed_.data());
    if (tiles_) return;
  }
  packed_ = Buffer<uint16_t>(kernels.packed_size(weight.rows, weight.cols), Use::kReadOften);
  const size_t panels = num_panels(kernels, weight.rows);
  kernels.pack_weight_bf16(weight.rows, weight.cols, weight.data, weight.stride, 0, panels,
                           packed_.data());
}

void PackedBf16::gemm(const Kernels& kernels, const GemmArgs& args) const {
  const auto multiply = tiles_ ? kernels.bf16_tiles.gemm : kernels.gemm_bf16;
  multiply(args, packed_.data());
}

}  // namespace simdformer

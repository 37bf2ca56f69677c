// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/packed_bf16.h"

#include <bit>

#include "layers/parts/panels.h"

namespace simdformer {
namespace {

float widened(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Calls visit(j, p, at) for each number of a weight (n, k) in the tiles of Bf16Tiles.
template <typename Visit>
void for_each_in_tiles(size_t n, size_t k, const Visit& visit) {
  constexpr size_t kRows = 16;
  constexpr size_t kStep = 32;
  const size_t steps = (k + kStep - 1) / kStep;
  for (size_t j = 0; j < n; ++j) {
    for (size_t p = 0; p < k; ++p) {
      const size_t tile = j / kRows * steps + p / kStep;
      const size_t pair = p % kStep % kRows;
      const size_t half = p % kStep / kRows;
      visit(j, p, tile * kRows * kStep + (pair * kRows + j % kRows) * 2 + half);
    }
  }
}

}  // namespace

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

void PackedBf16::unpack(const Kernels& kernels, Matrix weight) const {
  const auto read = [&](size_t j, size_t p, size_t at) { weight.row(j)[p] = widened(packed_[at]); };
  if (tiles_) return for_each_in_tiles(weight.rows, weight.cols, read);
  for_each_packed(weight.rows, weight.cols, kernels.gemm_nr, kernels.lanes, read);
}

void PackedBf16::gemm(const Kernels& kernels, const GemmArgs& args) const {
  const auto multiply = tiles_ ? kernels.bf16_tiles.gemm : kernels.gemm_bf16;
  multiply(args, packed_.data());
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/positions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/buffer.h"

namespace simdformer {
namespace {

// A whole position p is kBlock b + r. Its sine and cosine are computed from those of kBlock b and r
// by the formulas for sums of angles: four products instead of two calls of sin and cos. Error:
// about 1e-16.
constexpr double kBlock = 32;
constexpr double kLargestWhole = 1e15;

struct SinCos {
  Buffer<double> sin;
  Buffer<double> cos;

  explicit SinCos(size_t size) : sin(size), cos(size) {}
  void fill(double position, std::span<const double> frequencies, size_t at) {
    for (size_t j = 0; j < frequencies.size(); ++j) {
      sin[at + j] = std::sin(position * frequencies[j]);
      cos[at + j] = std::cos(position * frequencies[j]);
    }
  }
};

bool is_whole(double p) { return std::abs(p) < kLargestWhole && p == std::floor(p); }

// The sines and cosines of the remainders 0..kBlock-1 that the positions need.
SinCos remainders_of(std::span<const double> positions, std::span<const double> frequencies) {
  SinCos table(static_cast<size_t>(kBlock) * frequencies.size());
  std::array<bool, static_cast<size_t>(kBlock)> done{};
  for (const double p : positions) {
    if (!is_whole(p)) continue;
    const auto r = static_cast<size_t>(p - kBlock * std::floor(p / kBlock));
    if (!done[r]) table.fill(static_cast<double>(r), frequencies, r * frequencies.size());
    done[r] = true;
  }
  return table;
}

}  // namespace

void sin_cos_table(std::span<const double> positions, std::span<const double> frequencies,
                   double scale, TableView sines, TableView cosines, int num_threads,
                   const StopCheck& stop_check) {
  const size_t n = frequencies.size();
  constexpr size_t kSerial = 8192;
  const int threads = positions.size() * n < kSerial ? 1 : num_threads;
  const SinCos remainders = remainders_of(positions, frequencies);
  std::vector<SinCos> bases;
  for (int i = 0; i < threads; ++i) bases.emplace_back(n);
  run_team(threads, stop_check, [&](Team& team) {
    SinCos& base = bases[team.rank()];
    double base_block = std::nan("");
    team.for_each(positions.size(), [&](size_t i) {
      const double p = positions[i];
      float* s = sines.data + static_cast<ptrdiff_t>(i) * sines.row_stride;
      float* c = cosines.data + static_cast<ptrdiff_t>(i) * cosines.row_stride;
      if (!is_whole(p)) {
        for (size_t j = 0; j < n; ++j) {
          const auto at = static_cast<ptrdiff_t>(j);
          s[at * sines.step] = static_cast<float>(scale * std::sin(p * frequencies[j]));
          c[at * cosines.step] = static_cast<float>(scale * std::cos(p * frequencies[j]));
        }
        return;
      }
      const double block = std::floor(p / kBlock);
      if (block != base_block) base.fill(kBlock * block, frequencies, 0);
      base_block = block;
      const size_t row = static_cast<size_t>(p - kBlock * block) * n;
      for (size_t j = 0; j < n; ++j) {
        const auto at = static_cast<ptrdiff_t>(j);
        const double sr = remainders.sin.data()[row + j];
        const double cr = remainders.cos.data()[row + j];
        s[at * sines.step] = static_cast<float>(scale * (base.sin[j] * cr + base.cos[j] * sr));
        c[at * cosines.step] = static_cast<float>(scale * (base.cos[j] * cr - base.sin[j] * sr));
      }
    });
  });
}

}  // namespace simdformer

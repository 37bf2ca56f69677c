// SPDX-License-Identifier: Apache-2.0
// Activations to u8 as they come (formula at QuantizeArgs). Each row's each group of kS8Group
// columns has its own least value and step: a large value coarsens the steps of its group alone,
// and values of one sign, as after a GELU, use all 256 codes.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

// Rows whose ranges are found side by side: alone, each would wait for its own to leave the lanes.
constexpr size_t kRangeRows = 4;

// One group of kRangeRows rows.
struct Ranges {
  float least[kRangeRows];
  float greatest[kRangeRows];
  bool finite;  // every value is, and so is their sum
};

// Calls take(v) for the vectors of x[0, n), `rest` behind the last value. Masked: of x kept.
template <bool Masked, typename Take>
SIMDFORMER_INLINE void for_each_value(size_t n, const float* x, const float* kept, VecF32 rest,
                                      const Take& take) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VecF32 v = VecF32::load(x + i);
    take(Masked ? v * VecF32::load(kept + i) : v);
  }
  if (i == n) return;
  VecF32 v = VecF32::load(x + i, n - i);
  if constexpr (Masked) v = v * VecF32::load(kept + i, n - i);
  take(select_first(n - i, v, rest));
}

template <bool Masked>
SIMDFORMER_INLINE Ranges find_ranges(size_t n, const float* const (&x)[kRangeRows],
                                     const float* kept) {
  VecF32 negative[kRangeRows];  // -least: the largest of all is what reduce_max finds
  VecF32 greatest[kRangeRows];
  VecF32 sum[kRangeRows];
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    const VecF32 first = VecF32::broadcast(Masked && kept[0] == 0.0f ? 0.0f : x[r][0]);
    VecF32 least = first;
    greatest[r] = first;
    sum[r] = VecF32::zero();
    for_each_value<Masked>(n, x[r], kept, first, [&](VecF32 v) {
      least = min(v, least);
      greatest[r] = max(v, greatest[r]);
      sum[r] = sum[r] + v;
    });
    negative[r] = VecF32::zero() - least;
  }
  Ranges ranges;
  reduce_max(negative, ranges.least);
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) ranges.least[r] = -ranges.least[r];
  reduce_max(greatest, ranges.greatest);
  ranges.finite = !any_nan(((sum[0] + sum[1]) + (sum[2] + sum[3])) * VecF32::zero());
  return ranges;
}

// A step that has a reciprocal: never below the least normal number.
SIMDFORMER_INLINE float usable_step(float step) {
  constexpr float kLeastStep = 0x1p-126f;
  return step < kLeastStep ? kLeastStep : step;
}

// Codes of x[0, n), and 0 up to the end of the group, in pieces that lie `apart` bytes apart.
template <size_t Piece>
SIMDFORMER_INLINE void store_codes(size_t n, const float* x, float least, float inverse_step,
                                   uint8_t* q, size_t apart) {
  constexpr size_t kStep = 4 * kLanes;
  static_assert(kS8Group % Piece == 0 && Piece % kStep == 0);
  const auto at = [&](size_t i) { return q + i / Piece * apart + i % Piece; };
  const VecF32 least_v = VecF32::broadcast(least);
  const VecF32 inverse = VecF32::broadcast(inverse_step);
  VecF32 code[4];
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      code[j] = (VecF32::load(x + i + j * kLanes) - least_v) * inverse;
    }
    store_u8(code, at(i));
  }
  for (; i < kS8Group; i += kStep) {
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      const size_t column = min_size(n, i + j * kLanes);
      const size_t left = min_size(kLanes, n - column);
      const VecF32 v = left ? VecF32::load(x + column, left) : VecF32::zero();
      code[j] = select_first(left, (v - least_v) * inverse, VecF32::zero());
    }
    store_u8(code, at(i));
  }
}

// One group of kRangeRows rows from `row` on; where there are fewer, the last one is done again.
template <size_t Piece, bool Masked>
SIMDFORMER_INLINE void quantize_group(const QuantizeArgs& a, size_t n, size_t column, size_t row) {
  const float* kept = Masked ? a.kept + column : nullptr;
  const float* x[kRangeRows];
  size_t row_of[kRangeRows];
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    row_of[r] = min_size(row + r, a.rows - 1);
    x[r] = a.x + row_of[r] * a.ldx + column;
  }
  const Ranges ranges = find_ranges<Masked>(n, x, kept);
  float inverse[kRangeRows];
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    const float step = usable_step((ranges.greatest[r] - ranges.least[r]) * (1.0f / 255.0f));
    const bool finite = ranges.finite || all_finite(x[r], n);
    const size_t place = column / kS8Group * a.capacity + row_of[r];
    a.scale[place] = finite ? step : __builtin_nanf("");
    a.minimum[place] = ranges.least[r];
    inverse[r] = 1.0f / step;
  }
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    uint8_t* q = a.q + column * a.capacity + row_of[r] * Piece;
    store_codes<Piece>(n, x[r], ranges.least[r], inverse[r], q, a.capacity * Piece);
  }
}

// Masking by a product costs a twentieth of the time, by comparing and selecting it cost two
// fifths, and copying a group to put zeros in its outliers' places more than all the rest (Zen 5).
template <size_t Piece, bool Masked>
SIMDFORMER_INLINE void quantize_groups(const QuantizeArgs& a) {
  for (size_t column = 0; column < a.cols; column += kS8Group) {
    const size_t n = min_size(kS8Group, a.cols - column);
    for (size_t row = 0; row < a.rows; row += kRangeRows) {
      // The usual width as a constant: loops without a counter.
      if (n == kS8Group) {
        quantize_group<Piece, Masked>(a, kS8Group, column, row);
      } else {
        quantize_group<Piece, Masked>(a, n, column, row);
      }
    }
  }
}

// quantize_rows with codes in pieces: (groups, kS8Group / Piece, capacity, Piece).
template <size_t Piece>
SIMDFORMER_NOINLINE void quantize_in_pieces(const QuantizeArgs& a) {
  a.kept ? quantize_groups<Piece, true>(a) : quantize_groups<Piece, false>(a);
}

void quantize_rows(const QuantizeArgs& a) { quantize_in_pieces<kS8Group>(a); }

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Quantizes activations to u8 during a product (formula at QuantizeArgs). Each group of kS8Group
// columns of a row has its own minimum and step. So a large value affects the precision of its own
// group only, and values of one sign, as after a GELU, use all codes: 256, or 209 if rotated.
#pragma once

#include "kernels/kernels.h"
#include "kernels/rows.inl.h"

namespace simdformer {
namespace {

// Rows whose ranges are computed at the same time, to hide the latency of the reductions.
constexpr size_t kRangeRows = 4;

// The ranges of one group of kRangeRows rows.
struct Ranges {
  float least[kRangeRows];
  float greatest[kRangeRows];
  bool finite;  // whether every value and their sum are finite
};

// Calls take(v) for the vectors of x[0, n), with `rest` after the last value. Masked: x is
// multiplied by kept.
template <bool Masked, typename Take>
SIMDFORMER_INLINE void for_each_value(size_t n, const float* x, const float* kept, VecF32 rest,
                                      const Take& take) {
  size_t i = 0;
  for (; SIMDFORMER_FITS(i, kLanes, n); i += kLanes) {
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
  VecF32 negative[kRangeRows];  // -least, because reduce_max finds the largest
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

// A step that has a finite reciprocal: never below the smallest normal number.
SIMDFORMER_INLINE float usable_step(float step) {
  constexpr float kLeastStep = 0x1p-126f;
  return step < kLeastStep ? kLeastStep : step;
}

// Stores the codes of x[0, n), and 0 up to the end of the group, in pieces with stride `apart` in
// bytes.
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
  for (; SIMDFORMER_FITS(i, kStep, n); i += kStep) {
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

// One group of kRangeRows rows. If there are fewer rows, the last one is repeated.
struct GroupRows {
  size_t column;
  size_t row[kRangeRows];
  const float* x[kRangeRows];
};

SIMDFORMER_INLINE GroupRows group_rows(const QuantizeArgs& a, size_t column, size_t first) {
  GroupRows rows{.column = column, .row = {}, .x = {}};
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    rows.row[r] = min_size(first + r, a.rows - 1);
    rows.x[r] = a.x + rows.row[r] * a.ldx + column;
  }
  return rows;
}

template <size_t Piece, bool Masked>
SIMDFORMER_INLINE void quantize_group(const QuantizeArgs& a, size_t n, const GroupRows& rows) {
  const float one_code = 1.0f / static_cast<float>(a.rotated ? kS8RotatedCodes : kS8Codes);
  const auto& [column, row_of, x] = rows;
  const float* kept = Masked ? a.kept + column : nullptr;
  const Ranges ranges = find_ranges<Masked>(n, x, kept);
  float inverse[kRangeRows];
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    const float step = usable_step((ranges.greatest[r] - ranges.least[r]) * one_code);
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

// v[j], v[j + Half] = their sum, their difference.
template <size_t Half>
SIMDFORMER_INLINE void add_and_subtract(VecF32 (&v)[kS8RotationOrder]) {
  SIMDFORMER_UNROLL
  for (size_t j = 0; j < kS8RotationOrder; ++j) {
    if (j & Half) continue;
    const VecF32 difference = v[j] - v[j + Half];
    v[j] = v[j] + v[j + Half];
    v[j + Half] = difference;
  }
}

// y = H x for a whole group of a row, with H as at kS8RotationOrder. Masked: x is multiplied by
// kept.
template <bool Masked>
SIMDFORMER_INLINE void rotate_group(const float* x, const float* kept, float* y) {
  constexpr size_t kApart = kS8Group / kS8RotationOrder;
  static_assert(kApart % kLanes == 0 && kS8RotationOrder == 8);
  for (size_t i = 0; i < kApart; i += kLanes) {
    VecF32 v[kS8RotationOrder];
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < kS8RotationOrder; ++j) {
      v[j] = VecF32::load(x + j * kApart + i);
      if constexpr (Masked) v[j] = v[j] * VecF32::load(kept + j * kApart + i);
    }
    add_and_subtract<4>(v);
    add_and_subtract<2>(v);
    add_and_subtract<1>(v);
    SIMDFORMER_UNROLL
    for (size_t j = 0; j < kS8RotationOrder; ++j) v[j].store(y + j * kApart + i);
  }
}

template <size_t Piece, bool Masked>
SIMDFORMER_INLINE void quantize_rotated(const QuantizeArgs& a, GroupRows rows) {
  alignas(64) float rotated[kRangeRows][kS8Group];
  SIMDFORMER_UNROLL
  for (size_t r = 0; r < kRangeRows; ++r) {
    rotate_group<Masked>(rows.x[r], Masked ? a.kept + rows.column : nullptr, rotated[r]);
    rows.x[r] = rotated[r];
  }
  quantize_group<Piece, false>(a, kS8Group, rows);
}

// Masking by a product takes 5% more time. Comparing and selecting took 40% more; copying a group
// with zeros for its outliers took longer than everything else (Zen 5).
template <size_t Piece, bool Masked>
SIMDFORMER_INLINE void quantize_groups(const QuantizeArgs& a) {
  for (size_t column = 0; column < a.cols; column += kS8Group) {
    const size_t n = min_size(kS8Group, a.cols - column);
    for (size_t row = 0; row < a.rows; row += kRangeRows) {
      const GroupRows rows = group_rows(a, column, row);
      // a constant for the usual width, so that loops need no counter
      if (n == kS8Group) {
        a.rotated ? quantize_rotated<Piece, Masked>(a, rows)
                  : quantize_group<Piece, Masked>(a, kS8Group, rows);
      } else {
        quantize_group<Piece, Masked>(a, n, rows);
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

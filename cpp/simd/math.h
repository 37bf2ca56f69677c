// SPDX-License-Identifier: Apache-2.0
// exp, log1p, tanh and sigmoid on VecF32, for all levels. Include a vec_*.h first. Coefficients are
// weighted minimax fits in float64 (Lawson iteration), rounded to float32.
#pragma once

#include "simd/macros.h"

namespace simdformer {
namespace {

// c[0] + c[1] x + ... + c[N-1] x^(N-1) by Horner's rule.
template <size_t N>
SIMDFORMER_INLINE VecF32 polynomial(VecF32 x, const float (&c)[N]) {
  VecF32 p = VecF32::broadcast(c[N - 1]);
  SIMDFORMER_UNROLL
  for (size_t i = 1; i < N; ++i) p = fma(p, x, VecF32::broadcast(c[N - 1 - i]));
  return p;
}

// e^x = 2^n (1 + t): n = round(x / ln 2), t = e^r - 1, |r| <= ln(2)/2 (Cody and Waite: ln 2 in two
// parts, the high one short enough that n * hi is exact). t = r + r^2 q(r), q of degree 4: error of
// the fit 3.1e-9 of e^r. |x| < 2^20.
struct ExpParts {
  VecF32 n;
  VecF32 t;
};

SIMDFORMER_INLINE ExpParts split_exp(VecF32 x) {
  constexpr float kQ[] = {0.49999994f, 0.166665196f, 0.0416683927f, 0.00836878084f, 0.00138144672f};
  const VecF32 n = round(x * VecF32::broadcast(1.44269504f));
  VecF32 r = fma(n, VecF32::broadcast(-0.693359375f), x);
  r = fma(n, VecF32::broadcast(2.12194440e-4f), r);
  return {n, fma(polynomial(r, kQ) * r, r, r)};
}

// Below -104 the result is 0, above 88.73 it is inf; NaN is kept.
SIMDFORMER_INLINE VecF32 exp(VecF32 x) {
  x = max(VecF32::broadcast(-105.0f), min(VecF32::broadcast(89.0f), x));
  const ExpParts e = split_exp(x);
  return scale_by_pow2(VecF32::broadcast(1.0f) + e.t, e.n);
}

// 2^x by the polynomial c of x - round(x), which is exact, so no constant needs to be split.
template <size_t N>
SIMDFORMER_INLINE VecF32 exp2_by(VecF32 x, const float (&c)[N]) {
  // Two additions are faster than the rounding instruction: adding 1.5 2^23 leaves no bits for a
  // fraction.
  const VecF32 shift = VecF32::broadcast(12582912.0f);
  const VecF32 n = (x + shift) - shift;
  return scale_by_pow2(polynomial(x - n, c), n);
}

// 2^x for x <= 0, used by softmax: two roundings fewer than e^x. A fit of degree 6 with 2^0 = 1:
// error 2.0e-9, at most 0.94 ulp, 1.23 without a fused multiply-add. From -150 on the result is 0,
// also for -inf; NaN is kept.
SIMDFORMER_INLINE VecF32 exp2_nonpositive(VecF32 x) {
  constexpr float kP[] = {1.0f,           0.693147182f,  0.240226477f,  0.0555033237f,
                          0.00961843692f, 0.0013398875f, 0.00015353362f};
  return exp2_by(max(VecF32::broadcast(-160.0f), x), kP);
}

// 2^x for results that are rounded to integers of about 13 bits: a fit of degree 4, error 2.6e-6.
// Below -2 it may return 2^-2.
SIMDFORMER_INLINE VecF32 exp2_coarse(VecF32 x) {
  constexpr float kP[] = {0.999999285f, 0.693121791f, 0.240247443f, 0.0559178591f, 0.00957010128f};
  return exp2_by(max(VecF32::broadcast(-2.0f), x), kP);
}

// log(1 + x) for x >= 0 = n ln 2 + log(1 + f), 1 + f = (1 + x) 2^-n in [0.75, 1.5). n is the
// exponent of 1 + x, rounded with its mantissa. f is computed from x, not from 1 + x, so that small
// x keep their relative accuracy. log(1 + f) = 2 artanh(s), s = f / (2 + f): its series up to s^11,
// |s| <= 0.2, has an error of 1.3e-9. inf and NaN are returned.
SIMDFORMER_INLINE VecF32 log1p(VecF32 x) {
  constexpr float kSeries[] = {0.333333333f, 0.2f, 0.142857143f, 0.111111111f, 0.0909090909f};
  const VecF32 one = VecF32::broadcast(1.0f);
  const VecF32 bits = to_float(as_ints(one + x));
  const VecF32 n = round(fma(bits, VecF32::broadcast(0x1p-23f), VecF32::broadcast(-127.0f)));
  const VecF32 minus_n = VecF32::zero() - n;
  const VecF32 f = scale_by_pow2(x, minus_n) + (scale_by_pow2(one, minus_n) - one);
  const VecF32 s = f / (f + VecF32::broadcast(2.0f));
  const VecF32 twice = s + s;
  const VecF32 log_f = fma(polynomial(s * s, kSeries) * (s * s), twice, twice);
  const VecF32 low = fma(n, VecF32::broadcast(-2.12194440e-4f), log_f);
  const VecF32 result = fma(n, VecF32::broadcast(0.693359375f), low);
  return select(less(x, VecF32::broadcast(__builtin_inff())), result, x);
}

// 1 / (1 + e^-x)
SIMDFORMER_INLINE VecF32 sigmoid(VecF32 x) {
  const VecF32 one = VecF32::broadcast(1.0f);
  return one / (one + exp(VecF32::zero() - x));
}

// (e^2|x| - 1) / (e^2|x| + 1), where e^2|x| - 1 = 2^n t + (2^n - 1) keeps its relative accuracy
// near 0, where n = 0. Beyond 9.1, tanh is 1 in float32.
SIMDFORMER_INLINE VecF32 tanh(VecF32 x) {
  const VecF32 one = VecF32::broadcast(1.0f);
  const VecF32 z = min(VecF32::broadcast(9.1f), abs(x));
  const ExpParts e = split_exp(z + z);
  const VecF32 power = scale_by_pow2(one, e.n);
  const VecF32 expm1 = fma(power, e.t, power - one);
  return copysign(expm1 / (expm1 + (one + one)), x);
}

}  // namespace
}  // namespace simdformer

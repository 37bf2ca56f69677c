// SPDX-License-Identifier: Apache-2.0
// The few macros of the ISA objects. None declares a variable or hides control flow.
#pragma once

#define SIMDFORMER_INLINE inline __attribute__((always_inline))
#define SIMDFORMER_NOINLINE __attribute__((noinline))
#define SIMDFORMER_RESTRICT __restrict__
// Tiles stay in registers only if every loop over them is completely unrolled.
#define SIMDFORMER_UNROLL _Pragma("GCC unroll 16")
// Whether `step` elements from i on are within n; i is a multiple of step. With the sum, clang
// needs two counters and three more instructions per vector, and does not unroll; gcc's code is as
// good with it.
#ifdef __clang__
#define SIMDFORMER_FITS(i, step, n) ((i) < (n) / (step) * (step))
#else
#define SIMDFORMER_FITS(i, step, n) ((i) + (step) <= (n))
#endif

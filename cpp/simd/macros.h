// SPDX-License-Identifier: Apache-2.0
// The few macros of the ISA objects. None declares a variable or hides control flow.
#pragma once

#define SIMDFORMER_INLINE inline __attribute__((always_inline))
#define SIMDFORMER_NOINLINE __attribute__((noinline))
#define SIMDFORMER_RESTRICT __restrict__
// Tiles stay in registers only if every loop over them is completely unrolled.
#define SIMDFORMER_UNROLL _Pragma("GCC unroll 16")

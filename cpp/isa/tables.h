// SPDX-License-Identifier: Apache-2.0
// The one exported symbol of each ISA object.
#pragma once

#include "kernels/kernels.h"

namespace simdformer {

extern const Kernels kKernelsGeneric;
extern const Kernels kKernelsAvx2;
extern const Kernels kKernelsAvx2Vnni;
extern const Kernels kKernelsAvx512;
extern const Kernels kKernelsAvx512Vnni;
extern const Kernels kKernelsAvx512Amx;
extern const Kernels kKernelsNeon;
extern const Kernels kKernelsNeonDot;
extern const Kernels kKernelsNeonI8mm;

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "base/cpu.h"

#include <cpuid.h>

#include <cstdint>

namespace simdformer {
namespace {

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

// XCR0 by the instruction's bytes: the intrinsic would need -mxsave for this file.
uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool has(uint32_t reg, uint32_t bits) { return (reg & bits) == bits; }

}  // namespace

CpuFeatures detect_cpu_features() {
  const Registers leaf1 = cpuid(1);
  if (!has(leaf1.ecx, bit_OSXSAVE)) return {};
  const Registers leaf7 = cpuid(7);
  const uint64_t xcr0 = read_xcr0();
  const bool ymm_saved = (xcr0 & 0x06) == 0x06;
  const bool zmm_saved = (xcr0 & 0xE6) == 0xE6;

  CpuFeatures cpu;
  cpu.avx2 = ymm_saved && has(leaf1.ecx, bit_AVX | bit_FMA | bit_F16C) &&
             has(leaf7.ebx, bit_AVX2 | bit_BMI2);
  cpu.avx512 = cpu.avx2 && zmm_saved &&
               has(leaf7.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
  cpu.avx512_vnni = cpu.avx512 && has(leaf7.ecx, bit_AVX512VNNI);
  return cpu;
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "base/arch_x86.h"

#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdint>

#include "base/arch.h"

namespace simdformer {
namespace {

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

// XGETBV as instruction bytes, because the intrinsic would need -mxsave for this file.
uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool has(uint32_t reg, uint32_t bits) { return (reg & bits) == bits; }

}  // namespace

void spin_pause() { __builtin_ia32_pause(); }

CpuFeatures detect_cpu_features() {
  const Registers leaf1 = cpuid(1);
  if (!has(leaf1.ecx, bit_OSXSAVE)) return {};
  const Registers leaf7 = cpuid(7);
  // In subleaf 0, eax is the number of the last subleaf.
  const Registers leaf7_1 = leaf7.eax >= 1 ? cpuid(7, 1) : Registers{};
  const uint64_t xcr0 = read_xcr0();
  const bool ymm_saved = (xcr0 & 0x06) == 0x06;
  const bool zmm_saved = (xcr0 & 0xE6) == 0xE6;
  const bool tiles_saved = (xcr0 & 0x60000) == 0x60000;
  // Newer compilers have names for these bits; gcc 12 does not.
  constexpr uint32_t kAvxVnni = 1u << 4;                                       // leaf 7.1, eax
  constexpr uint32_t kAmxBf16TileInt8 = (1u << 22) | (1u << 24) | (1u << 25);  // leaf 7, edx

  CpuFeatures cpu;
  cpu.avx2 = ymm_saved && has(leaf1.ecx, bit_AVX | bit_FMA | bit_F16C) &&
             has(leaf7.ebx, bit_AVX2 | bit_BMI2);
  cpu.avx2_vnni = cpu.avx2 && has(leaf7_1.eax, kAvxVnni);
  cpu.avx512 = cpu.avx2 && zmm_saved &&
               has(leaf7.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
  cpu.avx512_vnni = cpu.avx512 && has(leaf7.ecx, bit_AVX512VNNI);
  cpu.avx512_amx = cpu.avx512_vnni && tiles_saved && has(leaf7.edx, kAmxBf16TileInt8);
  return cpu;
}

#ifdef __linux__
bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;               // the state's bit in XCR0
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool ask_for_tiles() { return false; }
#endif

}  // namespace simdformer

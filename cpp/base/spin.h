// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "base/arch.h"

namespace simdformer {

// Polls for at most this time. Returns whether the condition became true. The time is measured, not
// counted in pauses: a pause takes 40 cycles on some CPUs and 140 on others.
template <typename Condition>
bool spin_until(std::chrono::microseconds limit, const Condition& condition) {
  constexpr int kPausesPerLook = 8;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (condition()) return true;
      spin_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

}  // namespace simdformer

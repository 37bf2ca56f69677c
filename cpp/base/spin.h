// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "base/arch.h"

namespace simdformer {

// Asks again and again for at most this long. Returns whether the answer was yes. A pause takes 40
// cycles on some CPUs and 140 on others, so that counting them would not tell the time.
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

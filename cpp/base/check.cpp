// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <algorithm>
#include <cstdio>

namespace simdformer {

void append(std::string& text, double part) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%g", part);
  std::replace(std::begin(digits), std::end(digits), ',', '.');  // a locale's
  text += digits;
}

}  // namespace simdformer

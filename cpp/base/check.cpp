// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace simdformer {

void append(std::string& text, double part) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%g", part);
  std::replace(std::begin(digits), std::end(digits), ',', '.');  // a locale's
  text += digits;
}

std::string join(std::initializer_list<Part> parts) {
  std::string text;
  for (const Part& part : parts) part.append_to(text, part.value);
  return text;
}

void fail(std::initializer_list<Part> message) { throw std::invalid_argument(join(message)); }

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// Argument checks of the layers: std::invalid_argument (ValueError in Python) with the numbers.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace simdformer {

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// The message says what was given, what was expected, and which argument it is.
template <typename... Parts>
void check(bool condition, const Parts&... message) {
  if (!condition) throw std::invalid_argument(concat(message...));
}

}  // namespace simdformer

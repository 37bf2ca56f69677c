// SPDX-License-Identifier: Apache-2.0
// Argument checks of the layers: std::invalid_argument (ValueError in Python) with the numbers.
#pragma once

#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>

namespace simdformer {

// Not by streams: a wheel that holds the C++ library would be a tenth larger for them.
inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, char part) { text += part; }
void append(std::string& text, double part);  // 6 digits
template <std::integral T>
void append(std::string& text, T part) {
  text += std::to_string(part);
}

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

// The message says what was given, what was expected, and which argument it is.
template <typename... Parts>
void check(bool condition, const Parts&... message) {
  if (!condition) throw std::invalid_argument(concat(message...));
}

}  // namespace simdformer

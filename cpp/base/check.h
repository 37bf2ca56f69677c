// SPDX-License-Identifier: Apache-2.0
// Argument checks of the layers: std::invalid_argument (ValueError in Python) with the numbers.
#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace simdformer {

// Not by streams: a wheel that holds the C++ library would be a tenth larger for them.
inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, char part) { text += part; }
void append(std::string& text, double part);  // 6 digits
template <std::integral T>
void append(std::string& text, T part) {
  text += std::to_string(part);
}

// A part of a message: a value, and what appends it. Not a template, so that the code for a message
// is not compiled again for each combination of types.
struct Part {
  const void* value;
  void (*append_to)(std::string& text, const void* value);
};

inline void append_literal(std::string& text, const void* literal) {
  text += static_cast<const char*>(literal);
}

template <typename T>
Part part(const T& value) {
  if constexpr (std::is_array_v<T>) {
    return {value, append_literal};
  } else {
    return {&value, [](std::string& text, const void* erased) {
              append(text, *static_cast<const T*>(erased));
            }};
  }
}

std::string join(std::initializer_list<Part> parts);
[[noreturn]] void fail(std::initializer_list<Part> message);  // std::invalid_argument

template <typename... Parts>
std::string concat(const Parts&... parts) {
  return join({part(parts)...});
}

// The message says what was given, what was expected, and which argument it is.
template <typename... Parts>
void check(bool condition, const Parts&... message) {
  if (!condition) fail({part(message)...});
}

}  // namespace simdformer

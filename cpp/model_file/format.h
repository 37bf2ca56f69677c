// SPDX-License-Identifier: Apache-2.0
// A model in one file, as it runs, for every CPU that the library supports:
//   magic, version
//   the fields of Model (fields.h), in their order
//   the two sums of the checksum of everything before
// A number has 8 bytes, little-endian. An array is its number of elements, its elements and zeros
// up to a multiple of 8 bytes. A part that may be shared is 0 if absent, 1 followed by its fields,
// or 2 + the number of an earlier part. Matrices are not packed.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace simdformer::model_file {

static_assert(std::endian::native == std::endian::little, "numbers are stored little-endian");

inline constexpr char kMagic[8] = {'S', 'I', 'M', 'D', 'F', 'O', 'R', 'M'};
// Changes with any change of the fields.
inline constexpr size_t kVersion = 2;
inline constexpr size_t kUnit = 8;

inline constexpr size_t kNoPart = 0;
inline constexpr size_t kNewPart = 1;
inline constexpr size_t kFirstPart = 2;

// Fletcher's checksum (Fletcher 1982) of 32-bit words, with sums modulo 2^64.
struct Checksum {
  uint64_t first = 0;
  uint64_t second = 0;

  // size: a multiple of 4.
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    for (size_t i = 0; i < size; i += sizeof(uint32_t)) {
      uint32_t word;
      std::memcpy(&word, bytes + i, sizeof(word));
      first += word;
      second += first;
    }
  }
};

}  // namespace simdformer::model_file

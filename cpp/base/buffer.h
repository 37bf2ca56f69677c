// SPDX-License-Identifier: Apache-2.0
// Buffer: owning, 64-byte aligned, uninitialized storage. MatrixView: rows of another buffer.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "base/huge_pages.h"
#include "base/system.h"

namespace simdformer {

// kReadOften: in huge pages shared with other buffers of this kind.
enum class Use { kScratch, kReadOften };

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size, Use use = Use::kScratch)
      : data_(use == Use::kReadOften ? share(size) : allocate(size)), size_(size) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

  // At least `size` elements. When the buffer grows, its contents are lost.
  void reserve(size_t size) {
    if (size > size_) *this = Buffer(size);
  }

 private:
  // owner: of shared memory.
  struct Free {
    std::shared_ptr<std::byte> owner;
    void operator()(T* p) const {
      if (!owner) free_aligned(p);
    }
  };
  using Pointer = std::unique_ptr<T, Free>;

  static size_t bytes_of(size_t size) {
    const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    if (bytes / sizeof(T) < size) throw std::bad_alloc();
    return bytes;
  }

  // Large buffers request huge pages of their own.
  static Pointer allocate(size_t size) {
    if (size == 0) return nullptr;
    const size_t bytes = bytes_of(size);
    const bool large = bytes >= kHugePage;
    void* p = allocate_aligned(large ? kHugePage : 64, bytes);
    if (!p) throw std::bad_alloc();
    if (large) advise_huge_pages(p, bytes);
    return Pointer(static_cast<T*>(p));
  }

  static Pointer share(size_t size) {
    if (size == 0) return nullptr;
    std::shared_ptr<std::byte> memory = huge_page_memory(bytes_of(size));
    T* p = reinterpret_cast<T*>(memory.get());
    return Pointer(p, Free{std::move(memory)});
  }

  Pointer data_;
  size_t size_ = 0;
};

// A row-major matrix owned by another object.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;  // elements from row to row

  T* row(size_t i) const { return data + i * stride; }
  MatrixView slice(size_t begin, size_t count) const { return {row(begin), count, cols, stride}; }
  operator MatrixView<const T>() const { return {data, rows, cols, stride}; }
};

using Matrix = MatrixView<float>;
using ConstMatrix = MatrixView<const float>;

// With a stride that is a multiple of 4096 bytes, all rows would use the same L1 sets.
inline size_t padded_stride(size_t cols) {
  const size_t stride = (cols + 15) / 16 * 16;
  return stride % 1024 == 0 ? stride + 16 : stride;
}

// A scratch matrix (rows, cols) in a buffer that grows when necessary.
inline Matrix reserve_matrix(Buffer<float>& buffer, size_t rows, size_t cols) {
  const size_t stride = padded_stride(cols);
  buffer.reserve(rows * stride);
  return {buffer.data(), rows, cols, stride};
}

}  // namespace simdformer

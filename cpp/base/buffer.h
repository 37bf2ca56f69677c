// SPDX-License-Identifier: Apache-2.0
// Buffer: owning, 64-byte aligned, uninitialised storage. MatrixView: rows of somebody's buffer.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace simdformer {

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size) : data_(allocate(size)), size_(size) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

  // At least size elements; what it held is lost when it grows.
  void reserve(size_t size) {
    if (size > size_) *this = Buffer(size);
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };

  // Large buffers ask for huge pages: 42 MB of weights are 10,000 small ones, 21 large.
  static T* allocate(size_t size) {
    if (size == 0) return nullptr;
    constexpr size_t kHugePage = size_t{1} << 21;
    const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    if (bytes / sizeof(T) < size) throw std::bad_alloc();
    const bool large = bytes >= kHugePage;
    void* p = nullptr;
    if (posix_memalign(&p, large ? kHugePage : 64, bytes) != 0) throw std::bad_alloc();
    if (large) madvise(p, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(p);
  }

  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// A row-major matrix that somebody else owns.
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

// Strides that are multiples of 4096 bytes would put every row into one set of L1.
inline size_t padded_stride(size_t cols) {
  const size_t stride = (cols + 15) / 16 * 16;
  return stride % 1024 == 0 ? stride + 16 : stride;
}

// Scratch of rows x cols carved from a buffer that grows as needed.
inline Matrix reserve_matrix(Buffer<float>& buffer, size_t rows, size_t cols) {
  const size_t stride = padded_stride(cols);
  buffer.reserve(rows * stride);
  return {buffer.data(), rows, cols, stride};
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "base/huge_pages.h"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "base/system.h"

namespace simdformer {
namespace {

// The size of a mapping. Pages that are never written use no memory.
constexpr size_t kChunk = size_t{1} << 25;
// Smaller models fit into the caches, and their pages into the TLB.
constexpr size_t kSmall = size_t{1} << 16;

class Chunk {
 public:
  // One huge page more than requested, for alignment.
  explicit Chunk(size_t bytes)
      : mapped_(bytes + kHugePage), pieces_((bytes + kHugePage - 1) / kHugePage) {
    start_ = map_pages(mapped_);
    if (!start_) throw std::bad_alloc();
    const size_t into_page = reinterpret_cast<uintptr_t>(start_) % kHugePage;
    first_ = static_cast<std::byte*>(start_) + (kHugePage - into_page) % kHugePage;
    size_ = bytes;
    advise_huge_pages(first_, bytes);
  }
  ~Chunk() { unmap_pages(start_, mapped_); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  // Null if there is not enough space. Not thread-safe.
  std::byte* take(size_t bytes) {
    const size_t begin = taken_.load();
    if (size_ - begin < bytes) return nullptr;
    for (size_t page = begin / kHugePage; page * kHugePage < begin + bytes; ++page) {
      ++pieces_[page];
    }
    taken_.store(begin + bytes);
    return first_ + begin;
  }

  // A page is returned to the system as soon as all of its pieces are freed, even if other pages of
  // the chunk are in use. While a model is quantized, it temporarily has weights in float32.
  void give_back(const std::byte* piece, size_t bytes) {
    const auto begin = static_cast<size_t>(piece - first_);
    for (size_t page = begin / kHugePage; page * kHugePage < begin + bytes; ++page) {
      if (--pieces_[page] > 0) continue;
      // A full page gets no more pieces. But another piece may have been allocated in the meantime.
      const bool closed = (page + 1) * kHugePage <= taken_.load();
      if (closed && pieces_[page].load() == 0) discard_pages(first_ + page * kHugePage, kHugePage);
    }
  }

 private:
  void* start_;
  size_t mapped_;
  std::byte* first_;
  size_t size_;
  std::atomic<size_t> taken_ = 0;
  std::vector<std::atomic<uint32_t>> pieces_;  // of each page, wholly or in part
};

std::mutex mutex;
std::weak_ptr<Chunk> open_chunk;  // kept alive by its pieces

std::shared_ptr<std::byte> ordinary_memory(size_t bytes) {
  void* p = allocate_aligned(64, bytes);
  if (!p) throw std::bad_alloc();
  return {static_cast<std::byte*>(p), [](std::byte* piece) { free_aligned(piece); }};
}

}  // namespace

std::shared_ptr<std::byte> huge_page_memory(size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  return ordinary_memory(bytes);  // sanitizers check its bounds
#endif
  if (bytes < kSmall) return ordinary_memory(bytes);
  bytes = (bytes + 63) / 64 * 64;
  // try_lock: a forked child would wait forever if another thread held the lock during the fork.
  const std::unique_lock lock(mutex, std::try_to_lock);
  std::shared_ptr<Chunk> chunk = lock ? open_chunk.lock() : nullptr;
  std::byte* piece = chunk ? chunk->take(bytes) : nullptr;
  if (!piece) {
    chunk = std::make_shared<Chunk>(bytes > kChunk ? bytes : kChunk);
    piece = chunk->take(bytes);
    if (lock) open_chunk = chunk;
  }
  return {piece, [chunk, bytes](const std::byte* p) { chunk->give_back(p, bytes); }};
}

}  // namespace simdformer

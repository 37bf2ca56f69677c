// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

namespace simdformer {

constexpr size_t kHugePage = size_t{1} << 21;

// A piece of memory in huge pages, 64-byte aligned, for long-lived data that is read often. A
// weight of 0.6 MB does not fill a huge page, so weights share them. With small pages, the GEMMs of
// a single text, which read all weights from L3, took 7% longer (a Xeon in a virtual machine).
// Small pieces, and all pieces on systems without huge pages, are in ordinary memory. Throws
// std::bad_alloc.
std::shared_ptr<std::byte> huge_page_memory(size_t bytes);

}  // namespace simdformer

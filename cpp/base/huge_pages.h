// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

namespace simdformer {

constexpr size_t kHugePage = size_t{1} << 21;

// A piece of memory in huge pages, 64-byte aligned, for what lives long and is read often. A weight
// of 0.6 MB fills none by itself, so weights share them: with small pages a single text's GEMMs,
// which read all weights from L3, took 7% longer (a Xeon in a virtual machine). Where the system
// has no huge pages, and for a small piece, it is ordinary memory. Throws std::bad_alloc.
std::shared_ptr<std::byte> huge_page_memory(size_t bytes);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "isa/dispatch.h"

#include <atomic>
#include <cstdlib>

#include "base/check.h"
#include "isa/levels.h"

namespace simdformer {
namespace {

const std::vector<Level>& levels() {
  static const std::vector<Level> all = find_levels();
  return all;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += concat(text.empty() ? "" : ", ", name);
  return text;
}

const Kernels& choose() {
  const char* forced = std::getenv("SIMDFORMER_ISA");
  if (forced && *forced && std::string_view(forced) != "auto") return kernels_of(forced);
  const Kernels* widest = nullptr;
  for (const Level& level : levels()) {
    if (level.supported) widest = level.kernels;
  }
  return *widest;
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.emplace_back(level.kernels->isa);
  return names;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Level& level : levels()) {
    if (level.supported) names.emplace_back(level.kernels->isa);
  }
  return names;
}

const Kernels& kernels_of(std::string_view isa) {
  for (const Level& level : levels()) {
    if (level.supported && isa == level.kernels->isa) return *level.kernels;
  }
  check(false, "ISA level '", isa, "' can't run here; this CPU has: ", join(available_isas()),
        "; this build has: ", join(compiled_isas()));
  return *levels().front().kernels;  // never reached
}

const Kernels& active_kernels() {
  const Kernels* kernels = active.load(std::memory_order_acquire);
  if (!kernels) {
    kernels = &choose();
    active.store(kernels, std::memory_order_release);
  }
  return *kernels;
}

void set_active_isa(std::string_view isa) {
  active.store(&kernels_of(isa), std::memory_order_release);
}

}  // namespace simdformer

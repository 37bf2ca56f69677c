// SPDX-License-Identifier: Apache-2.0
#include "base/parallel.h"

#include <atomic>
#include <chrono>
#include <vector>

#include "base/spin.h"
#include "base/thread_lease.h"
#include "base/workers.h"

namespace simdformer {

using Clock = std::chrono::steady_clock;

// The last for_each in which this share was taken.
struct alignas(64) Share {
  std::atomic<uint32_t> phase{0};
};

struct TeamState {
  const StopCheck& stop_check;
  Clock::time_point next_check;
  std::vector<Share> shares;                         // one per member; none for a team of one
  alignas(64) std::atomic<uint32_t> shares_done{0};  // in all for_eachs so far
  alignas(64) std::atomic<size_t> next_task{0};
  alignas(64) std::atomic<bool> stopped{false};
};

namespace {

constexpr auto kCheckInterval = std::chrono::milliseconds(20);
// Time before a member takes another member's share: the usual delay between members of a balanced
// team. If it were shorter, members would work on data in each other's caches.
constexpr std::chrono::microseconds kSpinBeforeHelp{1};
// Time before a waiting member sleeps: longer than the usual imbalance of a layer step, and short
// enough not to waste the CPU time of a cgroup quota.
constexpr std::chrono::microseconds kSpinBeforeSleep{50};

}  // namespace

size_t Team::next_task(size_t count) {
  return stopping() ? count : state_.next_task.fetch_add(1, std::memory_order_relaxed);
}

bool Team::all_done() const {
  const uint32_t done = state_.shares_done.load(std::memory_order_acquire);
  return static_cast<int32_t>(done - shares_due_) >= 0;  // may be more if this member is late
}

void Team::run_shares(size_t shares, FunctionRef<void(size_t share)> run) {
  if (size_ == 1) {
    if (shares > 0) run(0);
    return;
  }
  ++phase_;
  shares_due_ += static_cast<uint32_t>(shares);
  const auto try_share = [&](size_t share) {
    std::atomic<uint32_t>& taken = state_.shares[share].phase;
    uint32_t last = taken.load(std::memory_order_relaxed);
    if (static_cast<int32_t>(last - phase_) >= 0) return;
    if (!taken.compare_exchange_strong(last, phase_, std::memory_order_relaxed)) return;
    run(share);
    const uint32_t done = state_.shares_done.fetch_add(1, std::memory_order_acq_rel) + 1;
    if (done == shares_due_) state_.shares_done.notify_all();
  };
  const auto done = [&] { return all_done(); };
  if (rank() < shares) try_share(rank());
  if (spin_until(kSpinBeforeHelp, done)) return;
  for (size_t i = 1; i <= shares; ++i) try_share((rank() + i) % shares);
  if (spin_until(kSpinBeforeSleep, done)) return;
  while (!all_done()) {
    const uint32_t seen = state_.shares_done.load(std::memory_order_acquire);
    if (seen != shares_due_) state_.shares_done.wait(seen, std::memory_order_acquire);
  }
}

bool Team::stopping() {
  if (is_caller_ && state_.stop_check) {
    const auto now = Clock::now();
    if (now >= state_.next_check) {
      state_.next_check = now + kCheckInterval;
      if (state_.stop_check()) state_.stopped.store(true, std::memory_order_relaxed);
    }
  }
  return state_.stopped.load(std::memory_order_relaxed);
}

void run_team(int num_threads, const StopCheck& stop_check, FunctionRef<void(Team&)> body) {
  const ThreadLease lease(num_threads);
  TeamState state{
      .stop_check = stop_check,
      .next_check = Clock::now() + kCheckInterval,
      .shares = std::vector<Share>(lease.size() > 1 ? static_cast<size_t>(lease.size()) : 0)};
  run_with_workers(lease.size(), [&](int rank) {
    Team team(state, rank, lease.size());
    body(team);
  });
  if (state.stopped.load()) throw Stopped();
}

}  // namespace simdformer

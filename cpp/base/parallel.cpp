// SPDX-License-Identifier: Apache-2.0
#include "base/parallel.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>

#include "base/thread_count.h"

namespace simdformer {

using Clock = std::chrono::steady_clock;

struct TeamState {
  const StopCheck& stop_check;
  Clock::time_point next_check;
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<unsigned> phase{0};
  alignas(64) std::atomic<size_t> next_task{0};
  alignas(64) std::atomic<bool> stopped{false};
};

namespace {

constexpr auto kCheckInterval = std::chrono::milliseconds(20);
// About 30 us of pauses before the kernel puts a waiting thread to sleep: longer than a balanced
// layer step is uneven, short enough not to burn a CPU that a cgroup quota counts.
constexpr int kSpins = 2000;

std::atomic<int> threads_in_use{0};

// libgomp's workers do not exist in a forked child, yet its pool says so: the child's first region
// would wait for them for ever. Ending the pool before the fork lets both sides start a new one.
void before_fork() { omp_pause_resource_all(omp_pause_hard); }
void after_fork_in_child() { threads_in_use.store(0); }

void install_fork_handlers() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(before_fork, nullptr, after_fork_in_child); });
}

// Takes up to wanted threads from the process's share, gives them back at the end of the scope.
class ThreadLease {
 public:
  explicit ThreadLease(int wanted) {
    const int limit = std::max(wanted, default_thread_count().count);
    const int used = threads_in_use.fetch_add(wanted);
    size_ = std::clamp(limit - used, 1, wanted);
    threads_in_use.fetch_sub(wanted - size_);
  }
  ~ThreadLease() { threads_in_use.fetch_sub(size_); }
  ThreadLease(const ThreadLease&) = delete;
  ThreadLease& operator=(const ThreadLease&) = delete;

  int size() const { return size_; }

 private:
  int size_;
};

}  // namespace

size_t Team::next_task(size_t count) {
  return stopping() ? count : state_.next_task.fetch_add(1, std::memory_order_relaxed);
}

void Team::barrier() {
  if (size_ == 1) return;
  const unsigned phase = state_.phase.load(std::memory_order_acquire);
  if (state_.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    state_.arrived.store(0, std::memory_order_relaxed);
    state_.phase.store(phase + 1, std::memory_order_release);
    state_.phase.notify_all();
    return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (state_.phase.load(std::memory_order_acquire) != phase) return;
    __builtin_ia32_pause();
  }
  state_.phase.wait(phase, std::memory_order_acquire);
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

int team_size(int num_threads) {
  return num_threads > 0 ? num_threads : default_thread_count().count;
}

void run_team(int num_threads, const StopCheck& stop_check, FunctionRef<void(Team&)> body) {
  install_fork_handlers();
  const ThreadLease lease(team_size(num_threads));
  TeamState state{.stop_check = stop_check, .next_check = Clock::now() + kCheckInterval};
  if (lease.size() == 1) {
    Team team(state, 0, 1);
    body(team);
  } else {
#pragma omp parallel num_threads(lease.size())
    {
      Team team(state, omp_get_thread_num(), omp_get_num_threads());
      body(team);
    }
  }
  if (state.stopped.load()) throw Stopped();
}

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/pinning.h"
#include "base/spin.h"
#include "base/system.h"
#include "base/workers.h"

namespace simdformer {
namespace {

// Time for which a worker polls for the next job before it sleeps: as long as Python needs between
// two short texts, because waking a thread takes equally long. 200 us cost 2 ms of CPU time in a
// virtual machine, which takes a guest that pauses for so long off its CPU; 100 us cost 0.3 ms.
constexpr std::chrono::microseconds kIdleSpin{100};
// Time for which a caller polls for workers that have not finished.
constexpr std::chrono::microseconds kLeavingSpin{30};
// Kernels use up to 160 KB of stack; musl's default is 128 KB.
constexpr size_t kStackBytes = size_t{1} << 20;

struct Job {
  FunctionRef<void(int)> body;
  std::vector<bool> taken;  // by rank; rank 0 is the caller's
  std::atomic<int> working{0};

  bool full() const { return std::find(taken.begin(), taken.end(), false) == taken.end(); }
};

class ThreadPool {
 public:
  void run(int size, FunctionRef<void(int)> body) {
    Job job{.body = body, .taken = std::vector<bool>(static_cast<size_t>(size), false)};
    job.taken[0] = true;
    post(job);
    body(0);
    withdraw(job);
  }

  // Locked during a fork, so that the parent's pool is consistent. The child creates a new one.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void post(Job& job) {
    const size_t helpers = job.taken.size() - 1;
    {
      const std::lock_guard lock(mutex_);
      while (num_workers_ < helpers && start_worker(num_workers_ + 1)) ++num_workers_;
      open_.push_back(&job);
    }
    posted_.fetch_add(1, std::memory_order_release);
    for (size_t i = 0; i < helpers; ++i) posted_.notify_one();
  }

  // No more workers may join; wait for those that have joined.
  void withdraw(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      std::erase(open_, &job);
    }
    const auto left = [&] { return job.working.load(std::memory_order_acquire) == 0; };
    if (spin_until(kLeavingSpin, left)) return;
    std::unique_lock lock(mutex_);
    left_.wait(lock, left);
  }

  void work(size_t id) {
    for (;;) {
      const uint32_t posted = posted_.load(std::memory_order_acquire);
      const auto [job, rank] = join(id);
      if (job) {
        job->body(rank);
        leave(*job);
        continue;
      }
      const auto more = [&] { return posted_.load(std::memory_order_acquire) != posted; };
      if (!spin_until(kIdleSpin, more)) posted_.wait(posted, std::memory_order_acquire);
    }
  }

  // A job and a free rank in it. A worker prefers its own number as rank, because its caches then
  // contain the data of that share from the last job.
  std::pair<Job*, int> join(size_t id) {
    const std::lock_guard lock(mutex_);
    if (open_.empty()) return {nullptr, 0};
    Job& job = *open_.front();
    auto place =
        job.taken.begin() + static_cast<std::ptrdiff_t>(std::min(id, job.taken.size() - 1));
    if (*place) place = std::find(job.taken.begin(), job.taken.end(), false);
    *place = true;
    if (job.full()) open_.erase(open_.begin());
    job.working.fetch_add(1, std::memory_order_relaxed);
    return {&job, static_cast<int>(place - job.taken.begin())};
  }

  // The job may be destroyed as soon as the caller sees that no worker is left in it.
  void leave(Job& job) {
    const std::lock_guard lock(mutex_);
    if (job.working.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
  }

  struct Start {
    ThreadPool* pool;
    size_t id;
  };

  // False if the system cannot start another thread.
  bool start_worker(size_t id) {
    auto start = std::make_unique<Start>(Start{this, id});
    const bool started = start_thread(kStackBytes, enter, start.get());
    if (started) static_cast<void>(start.release());
    return started;
  }

  static void* enter(void* argument) {
    const std::unique_ptr<Start> start(static_cast<Start*>(argument));
    pin_worker(start->id);
    start->pool->work(start->id);
    return nullptr;
  }

  std::mutex mutex_;
  std::vector<Job*> open_;  // jobs with free ranks
  size_t num_workers_ = 0;
  std::condition_variable left_;
  std::atomic<uint32_t> posted_{0};
};

// Both are created when the library is loaded, so no fork can happen during their creation. They
// are never destroyed, because workers may run until the process ends.
ThreadPool* pool = new ThreadPool;
[[maybe_unused]] const bool fork_handlers =
    at_fork([] { pool->lock(); }, [] { pool->unlock(); }, [] { pool = new ThreadPool; });

}  // namespace

const char* thread_provider() { return "pool"; }

void run_with_workers(int size, FunctionRef<void(int rank)> body) {
  size == 1 ? body(0) : pool->run(size, body);
}

}  // namespace simdformer

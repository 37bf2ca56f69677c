// SPDX-License-Identifier: Apache-2.0
// A Team is the threads that run one forward pass together. All members call the same functions
// with the same arguments, and for_each distributes shares of the work. The same code runs on a
// team of one at no extra cost. Between for_eachs, members may only read shared data, because a
// member that the kernel has delayed may still be in an earlier step.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "base/function_ref.h"

namespace simdformer {

// Returns whether the caller wants to stop, because of a pending Ctrl-C. Called only on the calling
// thread, at most every 20 ms. May be empty.
using StopCheck = std::function<bool()>;

// Thrown by run_team if the stop check returned true.
struct Stopped : std::runtime_error {
  Stopped() : std::runtime_error("stopped") {}
};

struct TeamState;

class Team {
 public:
  Team(TeamState& state, int rank, int size)
      : state_(state), rank_(rank), size_(size), is_caller_(rank == 0) {}

  size_t rank() const { return static_cast<size_t>(rank_); }
  size_t size() const { return static_cast<size_t>(size_); }

  // Runs body(i) for i in [0, count), in contiguous shares that depend on sizes only. Returns when
  // all are done. Each member takes its own share first, then unclaimed ones (work stealing), so a
  // member that another process keeps from its CPU is waited for only while it holds a share. After
  // a stop, bodies are skipped.
  template <typename Body>
  void for_each(size_t count, Body&& body) {
    const size_t shares = std::min(count, size());
    run_shares(shares, [&](size_t share) {
      const size_t end = count * (share + 1) / shares;
      for (size_t i = count * share / shares; i < end && !stopping(); ++i) body(i);
    });
  }

  // The next of a shared list of tasks. Each task goes to one member. Returns count or more if no
  // task is left, or after a stop. For tasks of different cost; there is no barrier.
  size_t next_task(size_t count);

  // This member as a team of one, for work that was split at a higher level.
  Team alone() const {
    Team team(state_, 0, 1);
    team.is_caller_ = is_caller_;
    return team;
  }

  // Whether a stop was requested. Long bodies check this between their parts.
  bool stopping();

 private:
  void run_shares(size_t shares, FunctionRef<void(size_t share)> run);
  bool all_done() const;

  TeamState& state_;
  int rank_;
  int size_;
  bool is_caller_;
  uint32_t phase_ = 0;       // number of for_eachs that have started
  uint32_t shares_due_ = 0;  // the shares of all of them together
};

// Runs body(team) on num_threads threads (the result of threads_of_call), or on fewer while other
// callers hold some: concurrent callers share the process's threads. Throws Stopped. body must not
// throw, and allocates nothing.
void run_team(int num_threads, const StopCheck& stop_check, FunctionRef<void(Team&)> body);

}  // namespace simdformer

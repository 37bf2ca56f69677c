// SPDX-License-Identifier: Apache-2.0
// A Team is the threads that run one forward pass together: every member calls the same functions
// with the same arguments, and for_each hands out shares of the work. Code written on a Team runs
// unchanged on a team of one, where it costs nothing. Between its for_eachs it may only read what
// the team shares: a member that the kernel kept from running comes there after all the others.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "base/function_ref.h"

namespace simdformer {

// Returns whether the caller wants to stop (a pending Ctrl-C). Called only on the calling thread,
// at most every 20 ms. May be empty.
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

  // body(i) for i in [0, count), in contiguous shares that depend on sizes alone; returns when all
  // are done. Each member takes its own share first, then unclaimed ones (work stealing), so a
  // member that another process keeps from its CPU is waited for only while it holds one. After a
  // stop the bodies are left out.
  template <typename Body>
  void for_each(size_t count, Body&& body) {
    const size_t shares = std::min(count, size());
    run_shares(shares, [&](size_t share) {
      const size_t end = count * (share + 1) / shares;
      for (size_t i = count * share / shares; i < end && !stopping(); ++i) body(i);
    });
  }

  // The next of a shared list of tasks, each handed to one member; count or more when none is left
  // or after a stop. For tasks of uneven cost; no barrier.
  size_t next_task(size_t count);

  // This member as a team of one, for work that is split above it.
  Team alone() const {
    Team team(state_, 0, 1);
    team.is_caller_ = is_caller_;
    return team;
  }

  // Whether a stop was asked for: what lasts long asks between its parts.
  bool stopping();

 private:
  void run_shares(size_t shares, FunctionRef<void(size_t share)> run);
  bool all_done() const;

  TeamState& state_;
  int rank_;
  int size_;
  bool is_caller_;
  uint32_t phase_ = 0;       // for_eachs begun
  uint32_t shares_due_ = 0;  // of all of them together
};

// Runs body(team) on num_threads threads (what threads_of_call gave), or fewer while other callers
// hold some: concurrent callers share the process's threads instead of multiplying them. Throws
// Stopped. body must not throw: it allocates nothing.
void run_team(int num_threads, const StopCheck& stop_check, FunctionRef<void(Team&)> body);

}  // namespace simdformer

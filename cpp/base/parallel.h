// SPDX-License-Identifier: Apache-2.0
// Threads. parallel.cpp is the only file that knows OpenMP.
//
// A Team is the threads that run one forward pass together: every member calls the same functions
// with the same arguments, and for_each hands each its share. Code written on a Team runs unchanged
// on a team of one, where it costs nothing.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace simdformer {

// A reference to a callable that outlives the call.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

// Asks whether the caller wants to stop (a pending Ctrl-C). Called on the calling thread alone, at
// most every 20 ms. May be empty.
using StopCheck = std::function<bool()>;

// Thrown by run_team when the stop check said so.
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

  // body(i) for i in [0, count) in contiguous shares, then a barrier. Shares depend on sizes alone.
  // After a stop the bodies are left out.
  template <typename Body>
  void for_each(size_t count, Body&& body) {
    const size_t end = count * (rank() + 1) / size();
    for (size_t i = count * rank() / size(); i < end && !stopping(); ++i) body(i);
    barrier();
  }

  // The next of a shared list of tasks, each handed to one member; count or more when none is left
  // or after a stop. For tasks of uneven cost; no barrier.
  size_t next_task(size_t count);

  // Returns when every member has called it.
  void barrier();

  // This member as a team of one, for work that is split above it.
  Team alone() const {
    Team team(state_, 0, 1);
    team.is_caller_ = is_caller_;
    return team;
  }

 private:
  bool stopping();

  TeamState& state_;
  int rank_;
  int size_;
  bool is_caller_;
};

// Threads that a call for num_threads (0: the default) gets at most.
int team_size(int num_threads);

// Runs body(team) on team_size(num_threads) threads, or fewer while other callers hold some:
// concurrent callers share the process's threads instead of multiplying them. Throws Stopped.
// body must not throw: it allocates nothing.
void run_team(int num_threads, const StopCheck& stop_check, FunctionRef<void(Team&)> body);

}  // namespace simdformer

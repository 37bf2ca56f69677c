// SPDX-License-Identifier: Apache-2.0
#include "layers/stack/blocks.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "layers/parts/linear.h"

namespace simdformer {
namespace {

struct Sequences {
  std::span<const int32_t> cu;

  size_t size() const { return cu.size() - 1; }
  size_t begin(size_t s) const { return static_cast<size_t>(cu[s]); }
  size_t length(size_t s) const { return begin(s + 1) - begin(s); }
};

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

std::vector<Block> cut_into_blocks(const Sequences& batch, size_t team_size) {
  const size_t total = batch.begin(batch.size());
  size_t count = ceil_div(total, kRowBlock);
  if (total >= kMinRowsPerMember * team_size) count = ceil_div(count, team_size) * team_size;
  const size_t target = ceil_div(total, std::max<size_t>(1, count));

  std::vector<Block> blocks;
  for (size_t s = 0; s < batch.size(); ++s) {
    const size_t length = batch.length(s);
    // A block gets one more sequence if its size is then closer to the target.
    const bool fits = !blocks.empty() && (blocks.back().tokens + length / 2 <= target);
    if (!fits) blocks.push_back({s, s, batch.begin(s), 0});
    blocks.back().last_sequence = s + 1;
    blocks.back().tokens += length;
  }
  return blocks;
}

// Multiply-adds of one layer, up to a factor: linear layers 12 h^2 per token (with the usual inner
// size 4 h), attention 2 h per pair of tokens.
double cost(const Sequences& batch, const Block& block, size_t hidden_size) {
  const double h = static_cast<double>(hidden_size);
  double pairs = 0;
  for (size_t s = block.first_sequence; s < block.last_sequence; ++s) {
    const double length = static_cast<double>(batch.length(s));
    pairs += length * length;
  }
  return 12 * h * h * static_cast<double>(block.tokens) + 2 * h * pairs;
}

// Whether threads that each take the next block, starting with the costliest, finish at about the
// same time.
bool balanced(std::span<const double> costs, size_t team_size) {
  constexpr double kTolerance = 1.08;
  std::vector<double> load(team_size, 0.0);
  for (const double c : costs) *std::min_element(load.begin(), load.end()) += c;
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);
  const double longest = *std::max_element(load.begin(), load.end());
  return longest * static_cast<double>(team_size) <= kTolerance * total;
}

}  // namespace

size_t Schedule::max_tokens() const {
  size_t tokens = 0;
  for (const Block& block : together) tokens = std::max(tokens, block.tokens);
  for (const Block& block : side_by_side) tokens = std::max(tokens, block.tokens);
  return tokens;
}

size_t Schedule::max_tokens_of(std::span<const int32_t> cu_seqlens) const {
  int32_t tokens = 0;
  for (const auto* blocks : {&together, &side_by_side}) {
    for (const Block& block : *blocks) {
      tokens = std::max(tokens, cu_seqlens[block.last_sequence] - cu_seqlens[block.first_sequence]);
    }
  }
  return static_cast<size_t>(tokens);
}

Schedule make_schedule(std::span<const int32_t> cu_seqlens, size_t hidden_size, size_t team_size) {
  const Sequences batch{cu_seqlens};
  std::vector<Block> blocks = cut_into_blocks(batch, team_size);
  std::vector<std::pair<double, Block>> costed;
  for (const Block& block : blocks) costed.emplace_back(cost(batch, block, hidden_size), block);
  std::stable_sort(costed.begin(), costed.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<double> costs;
  for (const auto& entry : costed) costs.push_back(entry.first);

  size_t together = 0;
  while (together < costs.size() && !balanced(std::span(costs).subspan(together), team_size)) {
    ++together;
  }
  Schedule schedule;
  for (size_t i = 0; i < costed.size(); ++i) {
    (i < together ? schedule.together : schedule.side_by_side).push_back(costed[i].second);
  }
  return schedule;
}

void run_blocks(WorkspacePool& workspaces, std::span<const int32_t> cu_seqlens, size_t hidden_size,
                int num_threads, const StopCheck& stop_check,
                FunctionRef<void(Scratch, const Schedule&)> reserve,
                FunctionRef<void(Team&, const Block&, Scratch)> forward) {
  const auto size = static_cast<size_t>(num_threads);
  const Schedule schedule = make_schedule(cu_seqlens, hidden_size, size);
  const auto& blocks = schedule.side_by_side;
  std::unique_ptr<Workspace> workspace = workspaces.take(size);
  if (!schedule.together.empty()) reserve(workspace->shared(), schedule);
  for (size_t rank = 0; rank < size && !blocks.empty(); ++rank) {
    reserve(workspace->of_member(rank), schedule);
  }
  run_team(num_threads, stop_check, [&](Team& team) {
    for (const Block& block : schedule.together) forward(team, block, workspace->shared());
    Team alone = team.alone();
    for (size_t i = team.next_task(blocks.size()); i < blocks.size();
         i = team.next_task(blocks.size())) {
      forward(alone, blocks[i], workspace->of_member(team.rank()));
    }
  });
  workspaces.give_back(std::move(workspace));
}

}  // namespace simdformer

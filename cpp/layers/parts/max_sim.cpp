// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/max_sim.h"

#include <algorithm>
#include <vector>

#include "layers/parts/token_fold.h"

namespace simdformer {
namespace {

// Processes documents [begin, end) at a time, enough of them for a pass over the queries.
struct Group {
  size_t begin;
  size_t end;
};

std::vector<Group> cut_into_groups(const TokenVectors& documents) {
  std::vector<Group> groups;
  size_t begin = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto tokens = static_cast<size_t>(documents.cu[d + 1] - documents.cu[begin]);
    if (tokens < kRowBlock && d + 1 < documents.size()) continue;
    groups.push_back({begin, d + 1});
    begin = d + 1;
  }
  return groups;
}

// largest: (documents of a group, tokens of all queries)
void add_up(const TokenVectors& queries, ConstMatrix largest, size_t first, bool mean, Matrix out) {
  for (size_t q = 0; q < queries.size(); ++q) {
    const auto begin = static_cast<size_t>(queries.cu[q]);
    const auto end = static_cast<size_t>(queries.cu[q + 1]);
    for (size_t d = 0; d < largest.rows; ++d) {
      double sum = 0;
      for (size_t i = begin; i < end; ++i) sum += static_cast<double>(largest.row(d)[i]);
      if (mean) sum /= static_cast<double>(end - begin);
      out.row(q)[first + d] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void max_sim(const TokenVectors& queries, const TokenVectors& documents, bool mean, int num_threads,
             const StopCheck& stop_check, Matrix out) {
  if (out.rows == 0 || out.cols == 0) return;
  if (queries.rows.rows == 0) {
    std::fill_n(out.data, out.rows * out.cols, 0.0f);
    return;
  }
  const Linear linear(queries.rows, nullptr);
  const TokenFold fold(linear, Fold::kMax, nullptr);
  const std::vector<Group> groups = cut_into_groups(documents);
  size_t most = 0;
  for (const Group& group : groups) most = std::max(most, group.end - group.begin);
  const auto members = static_cast<size_t>(num_threads);
  std::vector<Buffer<float>> scratch(members);
  std::vector<Buffer<float>> largest(members);
  for (size_t i = 0; i < members; ++i) {
    scratch[i].reserve(fold.scratch_size());
    reserve_matrix(largest[i], most, queries.rows.rows);
  }
  run_team(num_threads, stop_check, [&](Team& team) {
    team.for_each(groups.size(), [&](size_t g) {
      const auto [begin, end] = groups[g];
      const auto cu = documents.cu.subspan(begin, end - begin + 1);
      const auto row = static_cast<size_t>(cu.front());
      const ConstMatrix rows = documents.rows.slice(row, static_cast<size_t>(cu.back()) - row);
      const Matrix sums = reserve_matrix(largest[team.rank()], end - begin, queries.rows.rows);
      for (size_t chunk = 0; chunk < fold.num_chunks(); ++chunk) {
        fold.forward(rows, cu, chunk, scratch[team.rank()].data(), sums);
      }
      add_up(queries, sums, begin, mean, out);
    });
  });
}

}  // namespace simdformer

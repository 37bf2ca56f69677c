// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/experts.h"

#include <algorithm>

#include "base/check.h"

namespace simdformer {

Experts::Experts(Parts parts) : parts_(std::move(parts)) {
  const size_t count = parts_.experts.size(), size = hidden_size();
  check(parts_.router->out_features() == count && count > 0, "Experts: the router gives ",
        parts_.router->out_features(), " features for ", count, " experts");
  check(parts_.top_k > 0 && parts_.top_k <= count, "Experts: top_k must be in [1, ", count,
        "], got ", parts_.top_k);
  for (const auto& expert : parts_.experts) {
    check(expert->hidden_size() == size, "Experts: an expert has hidden_size ",
          expert->hidden_size(), ", the router takes ", size, " features");
  }
  check(parts_.bias.size() == 0 || parts_.bias.size() == size, "Experts: bias has size ",
        parts_.bias.size(), ", the router takes ", size, " features");
}

void Experts::reserve(Scratch scratch, size_t tokens) const {
  const size_t routed = tokens * parts_.top_k;
  RoutingScratch& routing = scratch.block.routing;
  reserve_matrix(routing.probabilities, tokens, parts_.experts.size());
  reserve_matrix(routing.outputs, routed, hidden_size());
  for (auto* numbers : {&routing.chosen, &routing.places, &routing.rows}) numbers->reserve(routed);
  routing.first.reserve(parts_.experts.size() + 1);
  for (MemberScratch& member : scratch.members) {
    reserve_matrix(member.routed, kRowBlock, hidden_size());
  }
  for (const auto& expert : parts_.experts) expert->reserve(scratch, kRowBlock);
}

// The experts of a row, ascending. If all probabilities are NaN, the first ones.
void Experts::choose(const float* probabilities, int32_t* chosen) const {
  const auto count = static_cast<int32_t>(parts_.experts.size());
  for (size_t k = 0; k < parts_.top_k; ++k) {
    int32_t best = -1;
    for (int32_t e = 0; e < count; ++e) {
      if (std::find(chosen, chosen + k, e) != chosen + k) continue;
      if (best < 0 || probabilities[e] > probabilities[best]) best = e;
    }
    chosen[k] = best;
  }
  std::sort(chosen, chosen + parts_.top_k);
}

// Groups the rows by expert, and notes where each row's outputs will be.
void Experts::sort_by_expert(size_t rows, RoutingScratch& routing) const {
  const size_t routed = rows * parts_.top_k;
  int32_t* first = routing.first.data();
  std::fill_n(first, parts_.experts.size() + 1, 0);
  for (size_t i = 0; i < routed; ++i) ++first[routing.chosen[i]];
  int32_t end = 0;
  for (size_t e = 0; e <= parts_.experts.size(); ++e) first[e] = end += first[e];
  for (size_t i = routed; i-- > 0;) {
    const int32_t place = --first[routing.chosen[i]];
    routing.places[i] = place;
    routing.rows[static_cast<size_t>(place)] = static_cast<int32_t>(i / parts_.top_k);
  }
}

// The outputs of routed rows [first, first + rows), on this thread only.
void Experts::run_share(Team& team, ConstMatrix x, RowRange routed, Scratch scratch,
                        Matrix out) const {
  const RoutingScratch& routing = scratch.block.routing;
  const Scratch own{scratch.block, scratch.members.subspan(team.rank(), 1)};
  Team alone = team.alone();
  size_t expert = 0;
  for (size_t i = routed.first, end = i + routed.rows; i < end && !team.stopping();) {
    while (static_cast<size_t>(routing.first[expert + 1]) <= i) ++expert;
    const size_t stop = std::min(end, static_cast<size_t>(routing.first[expert + 1]));
    const size_t count = std::min(stop - i, kRowBlock);
    const Matrix input = reserve_matrix(own.members[0].routed, count, hidden_size());
    for (size_t j = 0; j < count; ++j) {
      std::copy_n(x.row(static_cast<size_t>(routing.rows[i + j])), x.cols, input.row(j));
    }
    parts_.experts[expert]->forward(alone, input, {}, own, out.slice(i, count));
    i += count;
  }
}

void Experts::add_up(size_t row, ConstMatrix probabilities, const RoutingScratch& routing,
                     ConstMatrix out, const Epilogue& epilogue, float* y) const {
  const float* bias = parts_.bias.data();
  for (size_t j = 0; j < out.cols; ++j) y[j] = bias ? bias[j] : 0.0f;
  for (size_t k = row * parts_.top_k; k < (row + 1) * parts_.top_k; ++k) {
    const float p = probabilities.row(row)[routing.chosen[k]];
    const float* term = out.row(static_cast<size_t>(routing.places[k]));
    for (size_t j = 0; j < out.cols; ++j) y[j] += p * term[j];
  }
  if (!epilogue.residual.data) return;
  const float* residual = epilogue.residual.row(row);
  for (size_t j = 0; j < out.cols; ++j) y[j] += residual[j];
}

// How the threads divide the work depends on sizes only, although each expert has as many rows as
// the router gives it: a member that is late may not read the routing of a later call.
void Experts::forward(Team& team, ConstMatrix x, const Epilogue& epilogue, Scratch scratch,
                      Matrix y) const {
  RoutingScratch& routing = scratch.block.routing;
  const Kernels& kernels = parts_.router->kernels();
  const size_t count = parts_.experts.size(), routed = x.rows * parts_.top_k;
  const Matrix p = reserve_matrix(routing.probabilities, x.rows, count);
  const Matrix out = reserve_matrix(routing.outputs, routed, hidden_size());
  parts_.router->forward(team, x, p);
  team.for_each(x.rows, [&](size_t i) {
    kernels.softmax(1, count, p.row(i), p.row(i));
    choose(p.row(i), routing.chosen.data() + i * parts_.top_k);
  });
  team.for_each(1, [&](size_t) { sort_by_expert(x.rows, routing); });
  const size_t shares = std::min(routed, team.size());
  team.for_each(shares, [&](size_t share) {
    const size_t first = routed * share / shares;
    run_share(team, x, {first, routed * (share + 1) / shares - first}, scratch, out);
  });
  team.for_each(x.rows, [&](size_t i) { add_up(i, p, routing, out, epilogue, y.row(i)); });
  if (epilogue.norm) epilogue.norm->forward(team, y, y);
}

}  // namespace simdformer

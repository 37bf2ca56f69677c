// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/buffer.h"
#include "base/parallel.h"

namespace simdformer {

// The token vectors of texts, concatenated.
struct TokenVectors {
  ConstMatrix rows;
  std::span<const int32_t> cu;  // (texts + 1), offsets of the texts

  size_t size() const { return cu.size() - 1; }
};

// Late interaction (Khattab and Zaharia 2020, arXiv:2004.12832): out[q, d] is the largest product
// of each token of query q with a token of document d, summed or averaged over the query's tokens.
// Documents must not be empty, nor queries for an average. out: (queries.size(), documents.size()).
void max_sim(const TokenVectors& queries, const TokenVectors& documents, bool mean, int num_threads,
             const StopCheck& stop_check, Matrix out);

}  // namespace simdformer

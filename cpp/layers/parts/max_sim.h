// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/buffer.h"
#include "base/parallel.h"

namespace simdformer {

// Token vectors of texts, one text below another.
struct TokenVectors {
  ConstMatrix rows;
  std::span<const int32_t> cu;  // (texts + 1), offsets of the texts

  size_t size() const { return cu.size() - 1; }
};

// Late interaction (Khattab and Zaharia 2020, arXiv:2004.12832): out[q, d] is the sum, or the mean,
// over the tokens of query q of its largest product with a token of document d. No document is
// empty, no query for a mean. out: (queries.size(), documents.size()).
void max_sim(const TokenVectors& queries, const TokenVectors& documents, bool mean, int num_threads,
             const StopCheck& stop_check, Matrix out);

}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
// The scores that are no matrix product: a reduction of a function of q and k, eight keys' worth of
// independent sums at a time, and no (queries, keys, head_dim) temporary.
#pragma once

#include "kernels/gemm.inl.h"
#include "kernels/kernels.h"
#include "simd/math.h"

namespace simdformer {
namespace {

// scores[j] = sum_p term(p, q[p] + or - k^T[p, j]) over a strip's keys [begin, end), lanes along
// the keys. packed_k: panels as pack_keys lays them out, so a vector holds one p of kLanes keys.
template <typename Term>
SIMDFORMER_INLINE void reduce_pairs(size_t head_dim, size_t begin, size_t end, size_t num_keys,
                                    const float* q, const float* packed_k, float* scores,
                                    Term term) {
  for (size_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
    const size_t column = j / kNR * kNR;
    const size_t width = panel_vectors(num_keys, column) * kLanes;
    const float* k = packed_k + column * head_dim + (j - column);
    VecF32 sum = VecF32::zero();
    for (size_t p = 0; p < head_dim; ++p) {
      sum = term(p, VecF32::broadcast(q[p]), VecF32::load(k + p * width), sum);
    }
    const size_t valid = min_size(kLanes, end - j);
    sum.store(scores + j, valid);
  }
}

SIMDFORMER_INLINE void additive_scores(const AttentionArgs& a, size_t begin, size_t end,
                                       size_t packed_keys, const float* q, const float* packed_k,
                                       float* scores) {
  reduce_pairs(a.head_dim, begin, end, packed_keys, q, packed_k, scores,
               [&](size_t p, VecF32 qv, VecF32 kv, VecF32 sum) {
                 return fma(VecF32::broadcast(a.additive_weight[p]), tanh(qv + kv), sum);
               });
}

SIMDFORMER_INLINE void distance_scores(const AttentionArgs& a, size_t begin, size_t end,
                                       size_t packed_keys, const float* q, const float* packed_k,
                                       float* scores) {
  reduce_pairs(a.head_dim, begin, end, packed_keys, q, packed_k, scores,
               [](size_t, VecF32 qv, VecF32 kv, VecF32 sum) {
                 const VecF32 d = qv - kv;
                 return fma(VecF32::zero() - d, d, sum);
               });
}

}  // namespace
}  // namespace simdformer

// SPDX-License-Identifier: Apache-2.0
#include "layers/attention/relative_embeddings.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace simdformer {
namespace {

// Queries per strip. K and V are packed again for each strip, which takes little time compared with
// the work for 256 rows.
constexpr size_t kStrip = 256;

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

const Linear& of_head(const std::vector<Linear>& tables, size_t head) {
  return tables[tables.size() == 1 ? 0 : head];
}

// Products of rows with the part of a table that some distances need: columns of whole panels.
size_t product_cols(const std::vector<Linear>& tables, size_t distances) {
  if (tables.empty()) return 0;
  const size_t nr = tables[0].kernels().gemm_nr;
  return round_up(std::min(tables[0].out_features(), distances + 2 * nr), nr);
}

size_t product_floats(const std::vector<Linear>& tables, size_t rows, size_t distances) {
  return rows * product_cols(tables, distances);
}

// The parts of the scratch.
struct Scratch {
  float* bias;      // (kStrip, num_keys)
  float* weights;   // (kStrip, num_keys), if the caller did not ask for weights
  float* queries;   // (kStrip, head_dim): with the bias added
  float* products;  // of queries, (kStrip, columns); of keys, (num_keys, columns); sums of weights
};

struct Sizes {
  size_t pairs;
  size_t queries;
  size_t products;
};

Sizes sizes_of(const RelativeEmbeddings& e, size_t keys, size_t head_dim) {
  const size_t distances = keys + kStrip;
  const size_t sums = e.value_tables.empty() ? 0 : kStrip * e.value_tables[0].in_features();
  return {.pairs = kStrip * keys,
          .queries = kStrip * head_dim,
          .products = std::max({product_floats(e.query_tables, kStrip, distances),
                                product_floats(e.key_tables, keys, distances), sums})};
}

// Rows [first, first + rows) of the queries.
AttentionArgs strip_args(AttentionArgs a, size_t first, size_t rows) {
  const auto shift = static_cast<int64_t>(first);
  a.num_queries = rows;
  a.q += first * a.ldq;
  if (a.pair_bias) a.pair_bias += first * a.ld_pair_bias;
  if (a.pair_mask) a.pair_mask += first * a.ld_pair_mask;
  if (a.min_distance > -AttentionArgs::kUnbounded) a.min_distance += shift;
  if (a.max_distance < AttentionArgs::kUnbounded) a.max_distance += shift;
  a.out += first * a.ldo;
  if (a.weights) a.weights += first * a.ld_weights;
  return a;
}

// The queries of a strip, and their distances to the keys.
class RelativeStrip {
 public:
  RelativeStrip(const RelativeEmbeddings& embeddings, size_t head, size_t position,
                const AttentionArgs& args, const Scratch& scratch)
      : e_(embeddings), head_(head), position_(position), args_(args), scratch_(scratch) {}

  void run(const Kernels& kernels) {
    AttentionArgs args = args_;
    set_bias();
    if (!e_.query_tables.empty()) add_query_products();
    if (!e_.key_tables.empty()) add_key_products();
    args.pair_bias = scratch_.bias;
    args.ld_pair_bias = args.num_keys;
    if (e_.content_bias.size()) {
      const ConstMatrix q = biased_queries(e_.content_bias);
      args.q = q.data;
      args.ldq = q.stride;
    }
    if (!e_.value_tables.empty() && !args.weights) {
      args.weights = scratch_.weights;
      args.ld_weights = args.num_keys;
    }
    kernels.attention(args);
    if (!e_.value_tables.empty()) add_values(args);
  }

 private:
  // The rows of the table for query i and keys 0, 1, ...
  const int32_t* table_rows(size_t i) const { return e_.rows.data() + e_.center - position_ - i; }

  ConstMatrix biased_queries(const Buffer<float>& bias) const {
    if (!bias.size()) return {args_.q, args_.num_queries, args_.head_dim, args_.ldq};
    const float* b = bias.data() + head_ * args_.head_dim;
    for (size_t i = 0; i < args_.num_queries; ++i) {
      float* row = scratch_.queries + i * args_.head_dim;
      for (size_t p = 0; p < args_.head_dim; ++p) row[p] = args_.q[i * args_.ldq + p] + b[p];
    }
    return {scratch_.queries, args_.num_queries, args_.head_dim, args_.head_dim};
  }

  // The biases of the caller.
  void set_bias() const {
    for (size_t i = 0; i < args_.num_queries; ++i) {
      float* bias = scratch_.bias + i * args_.num_keys;
      if (args_.pair_bias) {
        std::copy_n(args_.pair_bias + i * args_.ld_pair_bias, args_.num_keys, bias);
      } else {
        std::fill_n(bias, args_.num_keys, 0.0f);
      }
    }
  }

  void add(size_t i, size_t j, float product) const {
    float& bias = scratch_.bias[i * args_.num_keys + j];
    // A key masked by -inf stays masked, even if its score is NaN.
    if (!std::isinf(bias)) bias += args_.softmax_scale * product;
  }

  // Products with the table's rows for all distances of the strip, starting with the returned row.
  struct Products {
    size_t first;
    size_t stride;
  };
  Products multiply(const Linear& table, ConstMatrix x) const {
    const int32_t* begin = table_rows(args_.num_queries - 1);
    const int32_t* end = table_rows(0) + args_.num_keys;
    const auto [low, high] = std::minmax_element(begin, end);
    const size_t nr = table.kernels().gemm_nr;
    const size_t from = static_cast<size_t>(*low) / nr;
    const size_t to = static_cast<size_t>(*high) / nr + 1;
    const size_t stride = (to - from) * nr;
    table.forward_panels(x, from, to, Activation::kIdentity,
                         {scratch_.products, x.rows, stride, stride});
    return {from * nr, stride};
  }

  void add_query_products() const {
    const auto [first, stride] =
        multiply(of_head(e_.query_tables, head_), biased_queries(e_.position_bias));
    for (size_t i = 0; i < args_.num_queries; ++i) {
      const int32_t* at = table_rows(i);
      const float* products = scratch_.products + i * stride;
      for (size_t j = 0; j < args_.num_keys; ++j) {
        add(i, j, products[static_cast<size_t>(at[j]) - first]);
      }
    }
  }

  void add_key_products() const {
    const auto [first, stride] = multiply(of_head(e_.key_tables, head_),
                                          {args_.k, args_.num_keys, args_.head_dim, args_.ldk});
    for (size_t i = 0; i < args_.num_queries; ++i) {
      const int32_t* at = table_rows(i);
      for (size_t j = 0; j < args_.num_keys; ++j) {
        add(i, j, scratch_.products[j * stride + static_cast<size_t>(at[j]) - first]);
      }
    }
  }

  void add_values(const AttentionArgs& args) const {
    const Linear& table = of_head(e_.value_tables, head_);
    const size_t cols = table.in_features();
    std::fill_n(scratch_.products, args.num_queries * cols, 0.0f);
    for (size_t i = 0; i < args.num_queries; ++i) {
      const int32_t* at = table_rows(i);
      const float* weights = args.weights + i * args.ld_weights;
      float* sums = scratch_.products + i * cols;
      for (size_t j = 0; j < args.num_keys; ++j) sums[at[j]] += weights[j];
    }
    const Matrix out{args.out, args.num_queries, args.value_dim, args.ldo};
    table.forward_rows({scratch_.products, args.num_queries, cols, cols}, out, {.residual = out});
  }

  const RelativeEmbeddings& e_;
  size_t head_;
  size_t position_;
  const AttentionArgs& args_;
  const Scratch& scratch_;
};

}  // namespace

void check_rows(const RelativeEmbeddings& e) {
  size_t num_rows = SIZE_MAX;
  const auto limit = [&](const std::vector<Linear>& tables, size_t (Linear::*rows)() const) {
    for (const Linear& table : tables) {
      check(table.in_features() == tables[0].in_features() &&
                table.out_features() == tables[0].out_features() && !table.is_int8() &&
                !table.is_bfloat16(),
            "the tables of relative positions must be float32 of one size");
      num_rows = std::min(num_rows, (table.*rows)());
    }
  };
  limit(e.query_tables, &Linear::out_features);
  limit(e.key_tables, &Linear::out_features);
  limit(e.value_tables, &Linear::in_features);
  for (const int32_t row : e.rows) {
    check(row >= 0 && static_cast<size_t>(row) < num_rows, "rows holds ", row, ", outside [0, ",
          num_rows, ")");
  }
}

void check_sizes(const RelativeEmbeddings& e, size_t num_heads, size_t head_dim) {
  const auto check_tables = [&](const char* name, const std::vector<Linear>& tables, bool values) {
    if (tables.empty()) return;
    const size_t size = values ? tables[0].out_features() : tables[0].in_features();
    check(tables.size() == 1 || tables.size() == num_heads, name, " has ", tables.size(),
          " heads, attention has ", num_heads);
    check(size == head_dim, name, " has ", size, " columns, head_dim is ", head_dim);
  };
  check_tables("query_table", e.query_tables, false);
  check_tables("key_table", e.key_tables, false);
  check_tables("value_table", e.value_tables, true);
  for (const Buffer<float>* bias : {&e.content_bias, &e.position_bias}) {
    check(bias->size() == 0 || bias->size() == num_heads * head_dim, "a bias has ", bias->size(),
          " elements, expected ", num_heads * head_dim);
  }
}

size_t relative_scratch(const RelativeEmbeddings& embeddings, size_t max_keys, size_t head_dim) {
  const Sizes sizes = sizes_of(embeddings, max_keys, head_dim);
  return 2 * sizes.pairs + sizes.queries + sizes.products;
}

void attend_relative(const Kernels& kernels, const RelativeEmbeddings& embeddings, size_t head,
                     size_t past, const AttentionArgs& args, float* scratch) {
  if (args.num_keys == 0) return kernels.attention(args);
  const Sizes sizes = sizes_of(embeddings, args.num_keys, args.head_dim);
  const Scratch parts{.bias = scratch,
                      .weights = scratch + sizes.pairs,
                      .queries = scratch + 2 * sizes.pairs,
                      .products = scratch + 2 * sizes.pairs + sizes.queries};
  for (size_t first = 0; first < args.num_queries; first += kStrip) {
    const size_t rows = std::min(kStrip, args.num_queries - first);
    const AttentionArgs strip = strip_args(args, first, rows);
    RelativeStrip(embeddings, head, past + first, strip, parts).run(kernels);
  }
}

}  // namespace simdformer

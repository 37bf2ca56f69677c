// SPDX-License-Identifier: Apache-2.0
// Attention with any score in one call. simdformer.functional has checked and broadcast the
// arguments; the checks here keep the kernels within the arrays.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/operands.h"

namespace simdformer::bindings {
namespace {

using py::arg;
using SpanArray = py::array_t<int64_t, py::array::c_style>;

// (sequences, 7): q_begin, num_queries, k_begin, num_keys, min_distance, max_distance, origin.
std::vector<Span> span_vector(const SpanArray& array, const Operand& q, const Operand& k) {
  check(array.ndim() == 2 && array.shape(1) == 7, "spans must have shape (sequences, 7)");
  std::vector<Span> spans;
  spans.reserve(static_cast<size_t>(array.shape(0)));
  const auto inside = [](int64_t begin, int64_t count, size_t rows) {
    const auto total = static_cast<int64_t>(rows);
    return begin >= 0 && count >= 0 && begin <= total && count <= total - begin;
  };
  for (py::ssize_t i = 0; i < array.shape(0); ++i) {
    const int64_t* s = array.data(i, 0);
    check(inside(s[0], s[1], q.num_rows) && inside(s[2], s[3], k.num_rows), "span ", i,
          " is outside the operands");
    spans.push_back({.sequence = static_cast<size_t>(i),
                     .q_begin = static_cast<size_t>(s[0]),
                     .num_queries = static_cast<size_t>(s[1]),
                     .k_begin = static_cast<size_t>(s[2]),
                     .num_keys = static_cast<size_t>(s[3]),
                     .weights_begin = static_cast<size_t>(s[0]),
                     .min_distance = std::max(s[4], -AttentionArgs::kUnbounded),
                     .max_distance = std::min(s[5], AttentionArgs::kUnbounded),
                     .origin = s[6]});
  }
  return spans;
}

// Keyword arguments by name; omitted ones are None.
class Options {
 public:
  explicit Options(const py::kwargs& kwargs) : kwargs_(kwargs) {}

  py::object operator[](const char* name) const {
    return kwargs_.contains(name) ? py::object(kwargs_[name]) : py::none();
  }
  bool flag(const char* name) const { return number<bool>(name, false); }
  std::string text(const char* name, const char* otherwise) const {
    return kwargs_.contains(name) ? kwargs_[name].cast<std::string>() : otherwise;
  }
  template <typename T>
  T number(const char* name, T otherwise) const {
    return kwargs_.contains(name) ? kwargs_[name].cast<T>() : otherwise;
  }

 private:
  const py::kwargs& kwargs_;
};

void check_relative_bias(const AttentionCall& call, std::span<const Span> spans,
                         const py::object& relative_bias) {
  if (relative_bias.is_none()) return;
  const auto size = static_cast<int64_t>(py::array::ensure(relative_bias).shape(3));
  for (const Span& span : spans) {
    if (span.num_queries == 0 || span.num_keys == 0) continue;
    const int64_t zero = static_cast<int64_t>(call.relative_zero) - span.origin;
    check(zero - static_cast<int64_t>(span.num_queries) + 1 >= 0 &&
              zero + static_cast<int64_t>(span.num_keys) <= size,
          "relative_bias has ", size, " distances, too few");
  }
}

void set_terms(ScoredAttention& scored, const Options& options, const Operand& q,
               const Operand& k) {
  AttentionCall& call = scored.call;
  const size_t batches = scored.spans.size();
  const size_t heads = q.heads;
  const Extents pairs{batches, heads, q.num_rows, k.num_rows};
  const Extents keys{batches, heads, 1, k.num_rows};
  call.additive_weight = optional_strided<float>("additive_weight", options["additive_weight"],
                                                 {1, heads, 1, call.head_dim});
  call.exact_tanh = options.flag("exact_tanh");
  call.key_bias = optional_strided<float>("key_bias", options["key_bias"], keys);
  call.key_bias.row_stride = 1;
  call.relative_bias = optional_strided<float>("relative_bias", options["relative_bias"],
                                               {batches, heads, 1, kAnyExtent});
  check_relative_bias(call, scored.spans, options["relative_bias"]);
  call.pair_bias = optional_strided<float>("pair_bias", options["pair_bias"], pairs);
  call.key_mask = optional_mask("key_mask", options["key_mask"], keys);
  call.key_mask.row_stride = 1;
  call.pair_mask = optional_mask("pair_mask", options["pair_mask"], pairs);
}

void set_weights(ScoredAttention& scored, const Options& options, const Operand& q) {
  AttentionCall& call = scored.call;
  const py::object weights = options["weights"];
  if (weights.is_none()) return;
  const auto cols = static_cast<size_t>(py::array::ensure(weights).shape(3));
  for (const Span& span : scored.spans) {
    check(span.num_keys <= cols, "weights has ", cols, " columns, a span has ", span.num_keys,
          " keys");
  }
  call.weights = strided_output("weights", weights, {q.batches, q.heads, q.num_rows, cols});
  call.weights_stage =
      by_name("weights_stage", options.text("weights_stage", "softmax"), kWeightsStages);
}

// The scalars, and the options of the score.
ScoredAttention scored_attention(const Operand& q, const Operand& k, size_t value_dim,
                                 const SpanArray& spans, const Options& options) {
  check(k.heads > 0 && q.heads % k.heads == 0, "query has ", q.heads, " heads, key has ", k.heads);
  ScoredAttention scored;
  scored.q = q;
  scored.k = k;
  const bool normalize = options.flag("normalize");
  scored.q_transform = {projections("query_projection", options["query_projection"],
                                    options["projection_bias"], q.heads, q.cols),
                        normalize};
  scored.k_transform = {
      projections("key_projection", options["key_projection"], py::none(), k.heads, k.cols),
      normalize};
  scored.key_norms = options.flag("key_norms");
  AttentionCall& call = scored.call;
  call.num_heads = q.heads;
  call.num_kv_heads = k.heads;
  call.head_dim = scored.q_transform.cols(q);
  call.value_dim = value_dim;
  scored.spans = span_vector(spans, q, k);
  call.score = by_name("score", options.text("score", "dot"), kScores);
  call.softmax_scale = options.number("softmax_scale", 1.0f);
  call.softcap = options.number("softcap", 0.0f);
  call.masked_value = options.number("masked_value", 0.0f);
  call.relative_zero = static_cast<size_t>(options.number<int64_t>("relative_zero", 0));
  check(scored.k_transform.cols(k) == call.head_dim, "query has ", call.head_dim,
        " columns, key has ", scored.k_transform.cols(k));
  return scored;
}

void attention(const py::object& query, const py::object& key, const py::object& value,
               const py::object& out, const SpanArray& spans, const py::kwargs& kwargs) {
  const Options options(kwargs);
  const Operand q = operand("query", query);
  const Operand k = operand("key", key);
  const Operand v = operand("value", value);
  ScoredAttention scored = scored_attention(q, k, v.cols, spans, options);
  AttentionCall& call = scored.call;
  const OptionalVector head_scales("head_scales", options["head_scales"], q.heads);
  call.head_scales = head_scales.data();
  const size_t batches = scored.spans.size();
  call.q = strided<float>("query", query, {batches, q.heads, q.num_rows, q.cols});
  call.k = strided<float>("key", key, {batches, k.heads, k.num_rows, k.cols});
  call.v = strided<float>("value", value, {batches, k.heads, k.num_rows, v.cols});
  call.out = strided_output("out", out, {q.batches, q.heads, q.num_rows, v.cols});
  set_terms(scored, options, q, k);
  set_weights(scored, options, q);
  const int num_threads = threads_of_call(options.number("num_threads", 0));
  without_gil([&](const StopCheck& stop_check) { scored.run(num_threads, stop_check); });
}

}  // namespace

void bind_attention(py::module_& module) {
  module.def("attention", &attention, arg("query"), arg("key"), arg("value"), arg("out"),
             arg("spans"));
}

}  // namespace simdformer::bindings

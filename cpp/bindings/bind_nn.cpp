// SPDX-License-Identifier: Apache-2.0
// The layers of simdformer.nn: what they are made of, and one call each.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/strided.h"
#include "layers/attention_module.h"
#include "layers/transformer_stack.h"

namespace simdformer::bindings {
namespace {

using py::arg;

template <typename T>
using Shared = std::shared_ptr<T>;

// Where row i of sequence s lies: 3-D arrays are (sequence, row, feature), 2-D ones packed.
template <typename T>
SequenceRows<T> sequence_rows(const char* name, const py::object& object,
                              const std::vector<int32_t>& cu, size_t features) {
  const py::array array = py::array::ensure(object);
  check(array && (array.ndim() == 2 || array.ndim() == 3), name, " must have 2 or 3 dimensions");
  if (!py::isinstance<py::array_t<float, 0>>(array)) {
    throw py::type_error(
        concat(name, " must be float32, got ", py::str(array.dtype()).cast<std::string>()));
  }
  const int last = static_cast<int>(array.ndim()) - 1;
  constexpr py::ssize_t kFloat = sizeof(float);
  check(static_cast<size_t>(array.shape(last)) == features, name, " has ", array.shape(last),
        " features, expected ", features);
  check(array.shape(last) <= 1 || array.size() == 0 || array.strides(last) == kFloat, name,
        "'s last dimension has a stride");
  SequenceRows<T> rows;
  rows.row_stride = array.strides(last - 1) / kFloat;
  T* data = static_cast<T*>(const_cast<void*>(array.data()));
  if (last == 2) {
    check(static_cast<size_t>(array.shape(0)) + 1 == cu.size(), name, " holds ", array.shape(0),
          " sequences, cu_seqlens ", cu.size() - 1);
  } else {
    check(array.shape(0) == cu.back(), name, " holds ", array.shape(0),
          " rows, cu_seqlens ends with ", cu.back());
  }
  for (size_t s = 0; s + 1 < cu.size(); ++s) {
    check(last == 1 || cu[s + 1] - cu[s] <= array.shape(1), name, " has ", array.shape(1),
          " rows a sequence, sequence ", s, " needs ", cu[s + 1] - cu[s]);
    rows.begin.push_back(last == 2 ? data + static_cast<ptrdiff_t>(s) * array.strides(0) / kFloat
                                   : data + cu[s] * rows.row_stride);
  }
  return rows;
}

// Rows a sequence of a padded array, 0 of a packed one.
size_t padded_length(const py::object& object) {
  const auto array = py::array::ensure(object);
  return array.ndim() == 3 ? static_cast<size_t>(array.shape(1)) : 0;
}

std::vector<int32_t> offsets(const char* name, const py::object& object) {
  std::vector<int32_t> cu = id_vector(name, object);
  check(!cu.empty() && cu.front() == 0, name, " must start at 0");
  for (size_t i = 1; i < cu.size(); ++i) {
    check(cu[i] >= cu[i - 1], name, " must not decrease, got ", cu[i - 1], " then ", cu[i],
          " at index ", i);
  }
  return cu;
}

std::span<const float> vector_of(const FloatArray& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

Buffer<float> copied(const FloatArray& array) {
  Buffer<float> buffer(static_cast<size_t>(array.size()));
  std::copy_n(array.data(), buffer.size(), buffer.data());
  return buffer;
}

// Masks and weights may be made for more rows and columns than there are behind the padding.
void check_covers(const char* name, const py::object& object, size_t rows, size_t cols) {
  if (object.is_none()) return;
  const auto array = py::array::ensure(object);
  check(array && array.ndim() == 4, name, " must have 4 dimensions");
  check(static_cast<size_t>(array.shape(2)) >= rows && static_cast<size_t>(array.shape(3)) >= cols,
        name, " has shape ", shape_of(array), ", the call needs ", rows, " rows and ", cols,
        " columns");
}

// (batch, heads, rows, cols) that a call fills where there are queries and keys.
Strided<float> weights_output(const char* name, const py::object& object, size_t batch,
                              size_t heads, size_t rows, size_t cols) {
  if (object.is_none()) return {};
  check_covers(name, object, rows, cols);
  const auto array = py::array::ensure(object);
  return strided_output(
      name, object,
      {batch, heads, static_cast<size_t>(array.shape(2)), static_cast<size_t>(array.shape(3))});
}

// The masks and biases of one attention, shapes (batch, heads, num_queries, num_keys) or 1.
struct Masks {
  bool causal = false;
  py::object key_mask = py::none();
  py::object key_bias = py::none();
  py::object pair_mask = py::none();
  py::object pair_bias = py::none();

  AttentionPattern pattern(const std::vector<int32_t>& cu_q, const std::vector<int32_t>& cu_k,
                           size_t max_keys, size_t num_heads) const {
    const size_t batch = cu_q.size() - 1;
    const Extents keys{batch, 1, 1, kAnyExtent};
    const Extents pairs{batch, num_heads, kAnyExtent, kAnyExtent};
    check_covers("key_mask", key_mask, 1, max_keys);
    check_covers("key_bias", key_bias, 1, max_keys);
    check_covers("pair_mask", pair_mask, longest_sequence(cu_q), max_keys);
    check_covers("pair_bias", pair_bias, longest_sequence(cu_q), max_keys);
    return {.cu_q = cu_q,
            .cu_k = cu_k,
            .causal = causal,
            .key_mask = optional_mask("key_mask", key_mask, keys),
            .key_bias = optional_strided<float>("key_bias", key_bias, keys),
            .pair_mask = optional_mask("pair_mask", pair_mask, pairs),
            .pair_bias = optional_strided<float>("pair_bias", pair_bias, pairs)};
  }
};

// A layer's positions for one call. The arrays live as long as this.
struct Positions {
  std::optional<FloatArray> relative;  // (num_heads, distances)
  size_t relative_center = 0;
  std::optional<FloatArray> cos;  // (positions, pairs)
  std::optional<FloatArray> sin;
  bool interleaved = false;

  PositionTables tables(size_t num_heads, size_t head_dim, size_t max_position) const {
    PositionTables t;
    if (relative) {
      const auto size = static_cast<size_t>(relative->shape(1));
      check(static_cast<size_t>(relative->shape(0)) == num_heads, "relative has ",
            relative->shape(0), " heads, attention has ", num_heads);
      check(relative_center + 1 >= max_position && relative_center + max_position <= size,
            "relative covers distances -", relative_center, " to ", size - relative_center - 1,
            ", ", max_position, " positions need more");
      t = {.relative = relative->data(), .relative_size = size, .relative_center = relative_center};
    }
    if (cos) {
      const auto pairs = static_cast<size_t>(cos->shape(1));
      check(sin && sin->shape(0) == cos->shape(0) && sin->shape(1) == cos->shape(1),
            "cos and sin must have one shape");
      check(2 * pairs <= head_dim, "cos has ", pairs, " pairs, head_dim is ", head_dim);
      check(static_cast<size_t>(cos->shape(0)) >= max_position, "cos covers ", cos->shape(0),
            " positions, the call needs ", max_position);
      t.cos = cos->data();
      t.sin = sin->data();
      t.rotary_dim = 2 * pairs;
      t.rotary_interleaved = interleaved;
    }
    return t;
  }
};

Shared<AttentionModule> make_attention(Shared<Linear> query, Shared<Linear> key,
                                       Shared<Linear> value, Shared<Linear> output,
                                       size_t num_heads, size_t num_kv_heads,
                                       const std::string& score, float softmax_scale, float softcap,
                                       float masked_value, bool normalize, bool key_norm_bias,
                                       const py::object& additive_weight, const py::object& bias_k,
                                       const py::object& bias_v, bool add_zero_attn) {
  MultiheadAttention::Parts parts{query, key, value, output, {}, {}};
  if (!additive_weight.is_none()) {
    parts.additive_weight = copied(float_array("additive_weight", additive_weight, 2));
  }
  if (!bias_k.is_none()) {
    parts.extra.key = copied(float_array("bias_k", bias_k, 1));
    parts.extra.value = copied(float_array("bias_v", bias_v, 1));
    check(parts.extra.key.size() == key->out_features(), "bias_k must have ", key->out_features(),
          " elements, got ", parts.extra.key.size());
    check(parts.extra.value.size() == value->out_features(), "bias_v must have ",
          value->out_features(), " elements, got ", parts.extra.value.size());
  }
  parts.extra.zero = add_zero_attn;
  return std::make_shared<AttentionModule>(std::make_shared<MultiheadAttention>(
      std::move(parts), AttentionOptions{.num_heads = num_heads,
                                         .num_kv_heads = num_kv_heads,
                                         .score = by_name("score", score, kScores),
                                         .softmax_scale = softmax_scale,
                                         .softcap = softcap,
                                         .masked_value = masked_value,
                                         .normalize = normalize,
                                         .key_norm_bias = key_norm_bias}));
}

void attention_forward(const AttentionModule& self, const py::object& query, const py::object& key,
                       const py::object& value, const py::object& cu_seqlens_q,
                       const py::object& cu_seqlens_k, const py::object& out,
                       const py::object& weights, const Masks& masks, const Positions& positions,
                       const py::object& head_mask, bool head_outputs, int num_threads) {
  check_num_threads(num_threads);
  const MultiheadAttention& attention = self.attention();
  const std::vector<int32_t> cu_q = offsets("cu_seqlens_q", cu_seqlens_q);
  const std::vector<int32_t> cu_k = offsets("cu_seqlens_k", cu_seqlens_k);
  check(cu_q.size() == cu_k.size(), "cu_seqlens_q is of ", cu_q.size() - 1,
        " sequences, cu_seqlens_k of ", cu_k.size() - 1);
  std::vector<int32_t> cu_all_keys;  // with the extra ones
  for (size_t s = 0; s < cu_k.size(); ++s) {
    cu_all_keys.push_back(cu_k[s] + static_cast<int32_t>(s * attention.num_extra_keys()));
  }
  const size_t max_keys = longest_sequence(cu_all_keys);
  AttentionModule::Call call{
      .query = sequence_rows<const float>("query", query, cu_q, attention.query_dim()),
      .key = sequence_rows<const float>("key", key, cu_k, attention.key_dim()),
      .value = sequence_rows<const float>("value", value, cu_k, attention.value_input_dim()),
      .out = sequence_rows<float>("out", out, cu_q,
                                  head_outputs ? attention.context_dim() : attention.embed_dim()),
      .padded_length = padded_length(out),
      .head_outputs = head_outputs,
      .pattern = masks.pattern(cu_q, cu_all_keys, max_keys, attention.num_heads()),
      .position = positions.tables(attention.num_heads(), attention.head_dim(),
                                   std::max(longest_sequence(cu_q), max_keys)),
      .head_mask = optional_strided<float>("head_mask", head_mask,
                                           {cu_q.size() - 1, attention.num_heads(), 1, 1}),
      .weights = {}};
  call.weights = weights_output("weights", weights, cu_q.size() - 1, attention.num_heads(),
                                longest_sequence(cu_q), max_keys);
  without_gil([&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check); });
}

struct CacheHandle {
  KVCache cache;
  bool busy = false;

  explicit CacheHandle(size_t batch_size) : cache(batch_size) {}
};

// A cache is written by one call at a time; the GIL guards the flag.
class CacheUse {
 public:
  explicit CacheUse(CacheHandle* handle) : handle_(handle) {
    if (!handle_) return;
    if (handle_->busy) throw std::runtime_error("the cache is in use by another thread");
    handle_->busy = true;
  }
  ~CacheUse() {
    if (handle_) handle_->busy = false;
  }
  CacheUse(const CacheUse&) = delete;
  CacheUse& operator=(const CacheUse&) = delete;

 private:
  CacheHandle* handle_;
};

size_t max_length(const KVCache& cache) {
  size_t result = 0;
  for (size_t s = 0; s < cache.size(); ++s) result = std::max(result, cache.length(s));
  return result;
}

// Checks the layers' tables and outputs of weights for one call, and keeps the arrays alive.
std::vector<TransformerLayer::Place> places(const TransformerStack& self,
                                            const std::vector<Positions>& positions,
                                            const std::vector<py::object>& head_masks,
                                            const std::vector<py::object>& self_weights,
                                            const std::vector<py::object>& cross_weights,
                                            size_t batch, size_t queries, size_t keys,
                                            size_t memory_keys) {
  const size_t layers = self.num_layers();
  const auto check_count = [&](const char* name, size_t count) {
    check(count == 0 || count == layers, name, " must have one element a layer, ", layers, ", got ",
          count);
  };
  check_count("positions", positions.size());
  check_count("head_masks", head_masks.size());
  check_count("self_weights", self_weights.size());
  check_count("cross_weights", cross_weights.size());
  std::vector<TransformerLayer::Place> result(layers);
  for (size_t i = 0; i < layers; ++i) {
    const MultiheadAttention& attention = self.layer(i).self_attention();
    const size_t heads = attention.num_heads();
    result[i].layer = i;
    if (!positions.empty()) {
      result[i].position = positions[i].tables(heads, attention.head_dim(), keys);
    }
    if (!head_masks.empty()) {
      result[i].head_mask =
          optional_strided<float>("head_mask", head_masks[i], {batch, heads, 1, 1});
    }
    if (!self_weights.empty()) {
      result[i].self_weights =
          weights_output("self_weights", self_weights[i], batch, heads, queries, keys);
    }
    if (!cross_weights.empty()) {
      result[i].cross_weights = strided_output(
          "cross_weights", cross_weights[i],
          {batch, self.layer(i).cross_attention()->num_heads(), queries, memory_keys});
    }
  }
  return result;
}

void stack_forward(const TransformerStack& self, const py::object& x, const py::object& cu_seqlens,
                   const py::object& out, const py::object& memory,
                   const py::object& memory_cu_seqlens, const Masks& masks,
                   const Masks& memory_masks, const std::vector<Positions>& positions,
                   const std::vector<py::object>& head_masks,
                   const std::vector<py::object>& self_weights,
                   const std::vector<py::object>& cross_weights, CacheHandle* self_cache,
                   CacheHandle* cross_cache, int num_threads) {
  check_num_threads(num_threads);
  const CacheUse use_self(self_cache);
  const CacheUse use_cross(cross_cache);
  const std::vector<int32_t> cu = offsets("cu_seqlens", cu_seqlens);
  const size_t batch = cu.size() - 1;
  TransformerStack::Call call;
  call.x = sequence_rows<const float>("x", x, cu, self.hidden_size());
  call.y = sequence_rows<float>("out", out, cu, self.hidden_size());
  call.padded_length = padded_length(out);
  size_t keys = longest_sequence(cu);
  const size_t heads = self.layer(0).self_attention().num_heads();
  if (self_cache) {
    call.self_cache = &self_cache->cache;
    check(call.self_cache->size() == batch, "the cache holds ", call.self_cache->size(),
          " sequences, the call has ", batch);
    keys += max_length(*call.self_cache);
  }
  call.self = masks.pattern(cu, cu, keys, heads);

  std::vector<int32_t> memory_cu;
  size_t memory_keys = 0;
  if (self.has_cross_attention()) {
    if (cross_cache) {
      call.cross_cache = &cross_cache->cache;
      check(call.cross_cache->size() == batch, "the memory's cache holds ",
            call.cross_cache->size(), " sequences, the call has ", batch);
      memory_keys = max_length(*call.cross_cache);
    }
    if (!memory.is_none()) {
      check(memory_keys == 0, "the cache holds a memory already");
      memory_cu = offsets("memory_cu_seqlens", memory_cu_seqlens);
      check(memory_cu.size() == cu.size(), "memory holds ", memory_cu.size() - 1,
            " sequences, x has ", batch);
      call.memory = sequence_rows<const float>("memory", memory, memory_cu,
                                               self.layer(0).cross_attention()->key_dim());
      memory_keys = longest_sequence(memory_cu);
    } else {
      check(memory_keys > 0, "memory is needed: there is none in a cache");
    }
    call.cross = memory_masks.pattern(cu, memory_cu, memory_keys,
                                      self.layer(0).cross_attention()->num_heads());
  }
  call.places = places(self, positions, head_masks, self_weights, cross_weights, batch,
                       longest_sequence(cu), keys, memory_keys);
  without_gil([&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check); });
}

Shared<TransformerLayer> make_layer(Shared<AttentionModule> self_attention,
                                    Shared<AttentionModule> cross_attention,
                                    Shared<FeedForward> feed_forward, Shared<Norm> self_norm,
                                    Shared<Norm> cross_norm, Shared<Norm> feed_forward_norm,
                                    bool norm_first, bool residual, float alpha) {
  return std::make_shared<TransformerLayer>(
      TransformerLayer::Parts{
          .self_attention = self_attention->shared(),
          .cross_attention = cross_attention ? cross_attention->shared() : nullptr,
          .feed_forward = feed_forward,
          .self_norm = self_norm,
          .cross_norm = cross_norm,
          .feed_forward_norm = feed_forward_norm},
      SublayerOptions{.norm_first = norm_first, .residual = residual, .alpha = alpha});
}

Positions make_positions(const py::object& relative, size_t relative_center, const py::object& cos,
                         const py::object& sin, bool interleaved) {
  Positions positions;
  if (!relative.is_none()) positions.relative = float_array("relative", relative, 2);
  positions.relative_center = relative_center;
  if (!cos.is_none()) {
    positions.cos = float_array("cos", cos, 2);
    positions.sin = float_array("sin", sin, 2);
  }
  positions.interleaved = interleaved;
  return positions;
}

// Rows of x: (rows, features) through one layer.
template <typename Layer>
FloatArray rows_forward(const Layer& layer, const py::object& x, size_t in, size_t out_features,
                        int num_threads) {
  check_num_threads(num_threads);
  const FloatArray array = float_array("x", x, 2);
  const ConstMatrix rows = matrix(array);
  check(rows.cols == in, "x has ", rows.cols, " features, expected ", in);
  FloatArray out = empty_matrix(rows.rows, out_features);
  const Matrix result = mutable_matrix(out);
  without_gil([&](const StopCheck& stop_check) {
    run_team(num_threads, stop_check, [&](Team& team) { layer.forward(team, rows, result); });
  });
  return out;
}

FloatArray norm_forward(const Norm& self, const py::object& x, int num_threads) {
  return rows_forward(self, x, self.size(), self.size(), num_threads);
}

FloatArray linear_forward(const Linear& linear, const py::object& x, int num_threads) {
  return rows_forward(linear, x, linear.in_features(), linear.out_features(), num_threads);
}

void bind_blocks(py::module_& module) {
  py::class_<Norm, Shared<Norm>>(module, "Norm")
      .def_static(
          "layer", [](Shared<LayerNorm> norm) { return make_layer_norm(norm); },
          arg("norm").none(false))
      .def_static(
          "rms",
          [](const py::object& weight, float eps) {
            return make_rms_norm(vector_of(float_array("weight", weight, 1)), eps);
          },
          arg("weight"), py::kw_only(), arg("eps"))
      .def_static(
          "batch",
          [](const py::object& weight, const py::object& bias, const py::object& running_mean,
             const py::object& running_var, float eps) {
            const FloatArray w = float_array("weight", weight, 1);
            const FloatArray b = float_array("bias", bias, 1);
            const FloatArray mean = float_array("running_mean", running_mean, 1);
            const FloatArray var = float_array("running_var", running_var, 1);
            return make_batch_norm(vector_of(w), vector_of(b), vector_of(mean), vector_of(var),
                                   eps);
          },
          arg("weight"), arg("bias"), arg("running_mean"), arg("running_var"), py::kw_only(),
          arg("eps"))
      .def("forward", &norm_forward, arg("x"), py::kw_only(), arg("num_threads") = 0);

  py::class_<AttentionModule, Shared<AttentionModule>>(module, "MultiheadAttention")
      .def(py::init(&make_attention), arg("query").none(false), arg("key").none(false),
           arg("value").none(false), arg("output").none(false), py::kw_only(), arg("num_heads"),
           arg("num_kv_heads"), arg("score") = "dot", arg("softmax_scale"), arg("softcap") = 0.0f,
           arg("masked_value") = 0.0f, arg("normalize") = false, arg("key_norm_bias") = false,
           arg("additive_weight") = py::none(), arg("bias_k") = py::none(),
           arg("bias_v") = py::none(), arg("add_zero_attn") = false)
      .def("forward", &attention_forward, arg("query"), arg("key"), arg("value"),
           arg("cu_seqlens_q"), arg("cu_seqlens_k"), arg("out"), py::kw_only(),
           arg("weights") = py::none(), arg("masks") = Masks{}, arg("positions") = Positions{},
           arg("head_mask") = py::none(), arg("head_outputs") = false, arg("num_threads") = 0);

  py::class_<TransformerLayer, Shared<TransformerLayer>>(module, "TransformerLayer")
      .def(py::init(&make_layer), arg("self_attention").none(false), arg("cross_attention"),
           arg("feed_forward").none(false), arg("self_norm"), arg("cross_norm"),
           arg("feed_forward_norm"), py::kw_only(), arg("norm_first") = false,
           arg("residual") = true, arg("alpha") = 1.0f);
}

void bind_call_arguments(py::module_& module) {
  py::class_<Masks>(module, "Masks")
      .def(py::init([](bool causal, py::object key_mask, py::object key_bias, py::object pair_mask,
                       py::object pair_bias) {
             return Masks{causal, key_mask, key_bias, pair_mask, pair_bias};
           }),
           py::kw_only(), arg("causal") = false, arg("key_mask") = py::none(),
           arg("key_bias") = py::none(), arg("pair_mask") = py::none(),
           arg("pair_bias") = py::none());

  py::class_<Positions>(module, "Positions")
      .def(py::init(&make_positions), py::kw_only(), arg("relative") = py::none(),
           arg("relative_center") = 0, arg("cos") = py::none(), arg("sin") = py::none(),
           arg("interleaved") = false);

  py::class_<CacheHandle, Shared<CacheHandle>>(module, "KVCache")
      .def(py::init<size_t>(), arg("batch_size"))
      .def("lengths",
           [](const CacheHandle& self) {
             std::vector<size_t> lengths;
             for (size_t s = 0; s < self.cache.size(); ++s) lengths.push_back(self.cache.length(s));
             return lengths;
           })
      .def(
          "select",
          [](CacheHandle& self, const py::object& indices) {
            const CacheUse use(&self);
            self.cache.select(id_vector("indices", indices));
          },
          arg("indices"));
}

}  // namespace

void bind_nn(py::module_& module) {
  bind_call_arguments(module);
  bind_blocks(module);

  py::class_<TransformerStack, Shared<TransformerStack>>(module, "TransformerStack")
      .def(py::init([](const std::vector<Shared<TransformerLayer>>& layers, Shared<Norm> norm) {
             return std::make_shared<TransformerStack>(constant("layers", layers), norm);
           }),
           arg("layers"), arg("norm") = py::none())
      .def("forward", &stack_forward, arg("x"), arg("cu_seqlens"), arg("out"), py::kw_only(),
           arg("memory") = py::none(), arg("memory_cu_seqlens") = py::none(),
           arg("masks") = Masks{}, arg("memory_masks") = Masks{},
           arg("positions") = std::vector<Positions>{},
           arg("head_masks") = std::vector<py::object>{},
           arg("self_weights") = std::vector<py::object>{},
           arg("cross_weights") = std::vector<py::object>{}, arg("self_cache") = py::none(),
           arg("cross_cache") = py::none(), arg("num_threads") = 0);

  module.def("linear_forward", &linear_forward, arg("linear"), arg("x"), py::kw_only(),
             arg("num_threads") = 0);
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// Transformer layers, stacks of them, and the cache of a decoder.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/nn_arguments.h"
#include "layers/stack/single_attention.h"
#include "layers/stack/transformer_stack.h"

namespace simdformer::bindings {
namespace {

using py::arg;

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

// What a call asks of its layers, one element a layer where it is not empty.
struct LayerArguments {
  const std::vector<Shared<Positions>>& positions;
  const std::vector<py::object>& head_masks;
  const std::vector<py::object>& self_weights;
  const std::vector<py::object>& cross_weights;
  const std::vector<py::object>& head_outputs;
  const std::vector<std::vector<int32_t>>& weights_heads;  // the heads whose weights are wanted
};

// A packed output, (tokens, cols) float32.
Matrix packed_output(const char* name, const py::object& object, size_t tokens, size_t cols) {
  if (object.is_none()) return {};
  const auto array = py::array::ensure(object);
  check(array && py::isinstance<FloatArray>(array) && array.ndim() == 2, name,
        " must be contiguous float32 of 2 dimensions");
  check(
      static_cast<size_t>(array.shape(0)) == tokens && static_cast<size_t>(array.shape(1)) == cols,
      name, " has shape ", shape_of(array), ", expected (", tokens, ", ", cols, ")");
  return {static_cast<float*>(const_cast<py::array&>(array).mutable_data()), tokens, cols, cols};
}

// Of each head its place among the wanted ones, -1 for others.
std::vector<int32_t> head_places(const std::vector<int32_t>& wanted, size_t heads) {
  std::vector<int32_t> places(heads, -1);
  for (size_t i = 0; i < wanted.size(); ++i) {
    check(wanted[i] >= 0 && static_cast<size_t>(wanted[i]) < heads, "weights_heads holds ",
          wanted[i], ", the layer has ", heads, " heads");
    places[static_cast<size_t>(wanted[i])] = static_cast<int32_t>(i);
  }
  return places;
}

struct CallSizes {
  size_t batch;
  size_t tokens;
  size_t queries;  // of the longest sequence
  size_t keys;
  size_t memory_keys;
};

// Checks the layers' arguments for one call. places must outlive it.
std::vector<TransformerLayer::Taps> layer_taps(const TransformerStack& self,
                                               const LayerArguments& given, const CallSizes& sizes,
                                               std::vector<std::vector<int32_t>>& places) {
  const size_t layers = self.num_layers();
  const auto check_count = [&](const char* name, size_t count) {
    check(count == 0 || count == layers, name, " must have one element a layer, ", layers, ", got ",
          count);
    return count > 0;
  };
  const bool positions = check_count("positions", given.positions.size());
  const bool head_masks = check_count("head_masks", given.head_masks.size());
  const bool self_weights = check_count("self_weights", given.self_weights.size());
  const bool cross_weights = check_count("cross_weights", given.cross_weights.size());
  const bool head_outputs = check_count("head_outputs", given.head_outputs.size());
  const bool some_heads = check_count("weights_heads", given.weights_heads.size());
  if (!positions && !head_masks && !self_weights && !cross_weights && !head_outputs) return {};
  std::vector<TransformerLayer::Taps> result(layers);
  places.resize(layers);
  for (size_t i = 0; i < layers; ++i) {
    const MultiheadAttention& attention = self.layer(i).self_attention();
    const size_t heads = attention.num_heads();
    TransformerLayer::Taps& taps = result[i];
    if (positions) taps.position = checked_position(given.positions[i], attention, sizes.keys);
    if (head_masks) {
      taps.head_mask =
          optional_strided<float>("head_mask", given.head_masks[i], {sizes.batch, heads, 1, 1});
    }
    size_t wanted = heads;
    if (some_heads) {
      places[i] = head_places(given.weights_heads[i], heads);
      taps.weights_head = places[i].data();
      wanted = given.weights_heads[i].size();
    }
    if (self_weights) {
      taps.self_weights = weights_output("self_weights", given.self_weights[i], sizes.batch, wanted,
                                         sizes.queries, sizes.keys);
    }
    if (cross_weights) {
      const size_t cross_heads = self.layer(i).cross_attention()->num_heads();
      taps.cross_weights =
          strided_output("cross_weights", given.cross_weights[i],
                         {sizes.batch, cross_heads, sizes.queries, sizes.memory_keys});
    }
    if (head_outputs) {
      taps.head_outputs = packed_output("head_outputs", given.head_outputs[i], sizes.tokens,
                                        attention.context_dim());
    }
  }
  return result;
}

// A cache holds keys packed for their products with queries, not as rows.
void check_cacheable(const TransformerStack& self, const TransformerStack::Call& call) {
  if (!call.self_cache) return;
  for (size_t i = 0; i < self.num_layers(); ++i) {
    const Positions* position = self.layer(i).self_attention().position();
    if (!call.taps.empty() && call.taps[i].position) position = call.taps[i].position;
    check(!position || !position->embeddings || position->embeddings->key_tables.empty(),
          "positions that meet the keys (DeBERTa's p2c) cannot be used with a cache");
  }
}

struct Memory {
  const py::object& rows;
  const py::object& cu_seqlens;
  const Masks& masks;
};

// What cross-attention reads: rows that are given, or a cache's. memory_cu must outlive the call.
// Returns the number of keys of the longest memory.
size_t set_memory(const TransformerStack& self, TransformerStack::Call& call, const Memory& memory,
                  CacheHandle* cache, const std::vector<int32_t>& cu,
                  std::vector<int32_t>& memory_cu) {
  if (!self.has_cross_attention()) return 0;
  const MultiheadAttention* attention = self.layer(0).cross_attention();
  size_t keys = 0;
  if (cache) {
    call.cross_cache = &cache->cache;
    check(call.cross_cache->size() == cu.size() - 1, "the memory's cache holds ",
          call.cross_cache->size(), " sequences, the call has ", cu.size() - 1);
    keys = max_length(*call.cross_cache);
  }
  if (memory.rows.is_none()) {
    check(keys > 0, "memory is needed: there is none in a cache");
  } else {
    check(keys == 0, "the cache holds a memory already");
    memory_cu = offsets("memory_cu_seqlens", memory.cu_seqlens);
    check(memory_cu.size() == cu.size(), "memory holds ", memory_cu.size() - 1,
          " sequences, x has ", cu.size() - 1);
    call.memory =
        sequence_rows<const float>("memory", memory.rows, memory_cu, attention->key_dim());
    keys = longest_sequence(memory_cu);
  }
  call.cross = memory.masks.pattern(cu, memory_cu, keys, attention->num_heads());
  return keys;
}

// The source of a call: ids for the stack's embeddings, or rows.
struct Source {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> token_type_ids;
  std::vector<int32_t> cu_seqlens;
  Batch batch;

  Source(const TransformerStack& self, const py::object& x, const py::object& cu,
         const py::object& types)
      : cu_seqlens(offsets("cu_seqlens", cu)) {
    if (!self.embeddings()) {
      check(types.is_none(), "token_type_ids are given to a stack without embeddings");
      return;
    }
    input_ids = id_vector("input_ids", x);
    if (!types.is_none()) token_type_ids = id_vector("token_type_ids", types);
    check(types.is_none() || token_type_ids.size() == input_ids.size(), "token_type_ids has ",
          token_type_ids.size(), " elements, input_ids has ", input_ids.size());
    check(static_cast<size_t>(cu_seqlens.back()) == input_ids.size(),
          "cu_seqlens must end with total_tokens=", input_ids.size(), ", got ", cu_seqlens.back());
    batch = {input_ids, token_type_ids, cu_seqlens};
  }
  size_t size() const { return cu_seqlens.size() - 1; }

  void set(const TransformerStack& self, const py::object& x, TransformerStack::Call& call) const {
    call.self.cu_q = call.self.cu_k = cu_seqlens;
    if (self.embeddings()) {
      call.ids = &batch;
    } else {
      call.rows = sequence_rows<const float>("x", x, cu_seqlens, self.hidden_size());
    }
  }
};

std::vector<Matrix> hidden_states_output(const TransformerStack& self,
                                         const std::vector<py::object>& arrays, size_t tokens) {
  const size_t count = self.num_layers() + 1;
  check(arrays.empty() || arrays.size() == count, "hidden_states must have ", count,
        " elements, got ", arrays.size());
  std::vector<Matrix> result;
  for (const py::object& array : arrays) {
    result.push_back(packed_output("hidden_states", array, tokens, self.hidden_size()));
  }
  return result;
}

void stack_forward(
    const TransformerStack& self, const py::object& x, const py::object& cu_seqlens,
    const py::object& out, const py::object& token_type_ids, const py::object& memory,
    const py::object& memory_cu_seqlens, const Masks& masks, const Masks& memory_masks,
    const std::vector<Shared<Positions>>& positions, const std::vector<py::object>& head_masks,
    const std::vector<py::object>& self_weights, const std::vector<py::object>& cross_weights,
    const std::vector<py::object>& head_outputs,
    const std::vector<std::vector<int32_t>>& weights_heads,
    const std::vector<py::object>& hidden_states, CacheHandle* self_cache, CacheHandle* cross_cache,
    const Shared<Linear>& lm_head, bool last_only, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const CacheUse use_self(self_cache);
  const CacheUse use_cross(cross_cache);
  const Source source(self, x, cu_seqlens, token_type_ids);
  const std::vector<int32_t>& cu = source.cu_seqlens;
  TransformerStack::Call call;
  size_t keys = longest_sequence(cu);
  if (self_cache) {
    call.self_cache = &self_cache->cache;
    check(call.self_cache->size() == source.size(), "the cache holds ", call.self_cache->size(),
          " sequences, the call has ", source.size());
    keys += max_length(*call.self_cache);
  }
  const size_t heads = self.num_layers() ? self.layer(0).self_attention().num_heads() : 1;
  call.self = masks.pattern(cu, cu, keys, heads);
  source.set(self, x, call);
  std::vector<int32_t> memory_cu;
  const size_t memory_keys =
      set_memory(self, call, {memory, memory_cu_seqlens, memory_masks}, cross_cache, cu, memory_cu);
  const auto tokens = static_cast<size_t>(cu.back());
  std::vector<std::vector<int32_t>> places;
  call.taps = layer_taps(
      self, {positions, head_masks, self_weights, cross_weights, head_outputs, weights_heads},
      {source.size(), tokens, longest_sequence(cu), keys, memory_keys}, places);
  call.hidden_states = hidden_states_output(self, hidden_states, tokens);
  check_cacheable(self, call);
  if (lm_head) {
    check(lm_head->in_features() == self.hidden_size(), "lm_head takes ", lm_head->in_features(),
          " features, the stack gives ", self.hidden_size());
    for (size_t s = 0; last_only && s < source.size(); ++s) {
      check(sequence_length(cu, s) > 0, "sequence ", s, " is empty: it has no last token");
    }
    const size_t rows = last_only ? source.size() : tokens;
    LogitsSink sink(cu, *lm_head, last_only,
                    packed_output("out", out, rows, lm_head->out_features()));
    without_gil(
        [&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check, sink); });
    return;
  }
  RowsSink sink(cu, sequence_rows<float>("out", out, cu, self.hidden_size()), padded_length(out));
  without_gil(
      [&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check, sink); });
}

// Pooled vectors of a stack with embeddings: what encoding texts runs.
struct PooledStack {
  Shared<TransformerStack> stack;
  PoolingHead head;
};

FloatArray pooled_encode(const PooledStack& self, const py::object& input_ids,
                         const py::object& cu_seqlens, const py::object& token_type_ids,
                         size_t pooling_start, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const Source source(*self.stack, input_ids, cu_seqlens, token_type_ids);
  TransformerStack::Call call;
  source.set(*self.stack, input_ids, call);
  FloatArray out = empty_matrix(source.size(), self.head.embedding_dimension());
  PooledSink sink(source.cu_seqlens, self.head, pooling_start, mutable_matrix(out));
  without_gil([&](const StopCheck& stop_check) {
    self.stack->forward(call, num_threads, stop_check, sink);
  });
  return out;
}

Shared<PooledStack> make_pooled_stack(const Shared<TransformerStack>& stack,
                                      const std::vector<std::string>& pooling,
                                      const std::vector<Dense>& dense, bool normalize) {
  check(stack->embeddings() != nullptr, "PooledStack: the stack has no embeddings");
  check(!stack->has_cross_attention(), "PooledStack: the stack has cross-attention");
  std::vector<Pooling> modes;
  for (const auto& name : pooling) modes.push_back(by_name("pooling mode", name, kPoolings));
  return std::make_shared<PooledStack>(
      PooledStack{stack, PoolingHead(stack->hidden_size(), modes, dense, normalize)});
}

FloatArray stack_encode(const TransformerStack& self, const py::object& input_ids,
                        const py::object& cu_seqlens, const py::object& token_type_ids,
                        int num_threads) {
  num_threads = threads_of_call(num_threads);
  const Source source(self, input_ids, cu_seqlens, token_type_ids);
  check(self.embeddings() != nullptr, "encode: the stack has no embeddings");
  TransformerStack::Call call;
  source.set(self, input_ids, call);
  FloatArray out = empty_matrix(source.input_ids.size(), self.hidden_size());
  RowsSink sink(source.cu_seqlens,
                sequence_rows<float>("out", out, source.cu_seqlens, self.hidden_size()), 0);
  without_gil(
      [&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check, sink); });
  return out;
}

Shared<TransformerLayer> make_layer(Shared<SingleAttention> self_attention,
                                    Shared<SingleAttention> cross_attention,
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

void bind_cache(py::module_& module) {
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

void bind_stack(py::module_& module) {
  bind_cache(module);

  py::class_<TransformerLayer, Shared<TransformerLayer>>(module, "TransformerLayer")
      .def(py::init(&make_layer), arg("self_attention").none(false), arg("cross_attention"),
           arg("feed_forward").none(false), arg("self_norm"), arg("cross_norm"),
           arg("feed_forward_norm"), py::kw_only(), arg("norm_first") = false,
           arg("residual") = true, arg("alpha") = 1.0f);

  const auto vocab_size = [](const TransformerStack& self) {
    return self.embeddings() ? self.embeddings()->vocab_size() : 0;
  };
  const auto num_token_types = [](const TransformerStack& self) {
    return self.embeddings() ? self.embeddings()->num_token_types() : 0;
  };
  using Arrays = std::vector<py::object>;
  py::class_<TransformerStack, Shared<TransformerStack>>(module, "TransformerStack")
      .def(py::init([](const std::vector<Shared<TransformerLayer>>& layers, Shared<Norm> norm,
                       Shared<Embeddings> embeddings) {
             return std::make_shared<TransformerStack>(constant("layers", layers), norm,
                                                       embeddings);
           }),
           arg("layers"), arg("norm") = py::none(), arg("embeddings") = py::none())
      .def_property_readonly("hidden_size", &TransformerStack::hidden_size)
      .def_property_readonly("num_layers", &TransformerStack::num_layers)
      .def_property_readonly("max_positions", &TransformerStack::max_length)
      .def_property_readonly("vocab_size", vocab_size)
      .def_property_readonly("num_token_types", num_token_types)
      .def("encode", &stack_encode, arg("input_ids"), arg("cu_seqlens"),
           arg("token_type_ids") = py::none(), py::kw_only(), arg("num_threads") = 0)
      .def("forward", &stack_forward, arg("x"), arg("cu_seqlens"), arg("out"), py::kw_only(),
           arg("token_type_ids") = py::none(), arg("memory") = py::none(),
           arg("memory_cu_seqlens") = py::none(), arg("masks") = Masks{},
           arg("memory_masks") = Masks{}, arg("positions") = std::vector<Shared<Positions>>{},
           arg("head_masks") = Arrays{}, arg("self_weights") = Arrays{},
           arg("cross_weights") = Arrays{}, arg("head_outputs") = Arrays{},
           arg("weights_heads") = std::vector<std::vector<int32_t>>{},
           arg("hidden_states") = Arrays{}, arg("self_cache") = py::none(),
           arg("cross_cache") = py::none(), arg("lm_head") = py::none(), arg("last_only") = false,
           arg("num_threads") = 0);

  py::class_<PooledStack, Shared<PooledStack>>(module, "PooledStack")
      .def(py::init(&make_pooled_stack), arg("stack").none(false), arg("pooling"),
           arg("dense") = std::vector<Dense>{}, py::kw_only(), arg("normalize") = false)
      .def_property_readonly(
          "embedding_dimension",
          [](const PooledStack& self) { return self.head.embedding_dimension(); })
      .def("encode", &pooled_encode, arg("input_ids"), arg("cu_seqlens"),
           arg("token_type_ids") = py::none(), py::kw_only(), arg("pooling_start") = 0,
           arg("num_threads") = 0);
}

}  // namespace simdformer::bindings

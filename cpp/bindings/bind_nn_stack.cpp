// SPDX-License-Identifier: Apache-2.0
// Transformer layers, stacks of them, and the cache of a decoder.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/nn_arguments.h"
#include "layers/attention/attention_module.h"
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

// A cache holds keys packed for their products with queries, not as rows.
void check_cacheable(const TransformerStack::Call& call) {
  for (const TransformerLayer::Place& place : call.places) {
    const RelativeEmbeddings* embeddings = place.position.embeddings;
    check(!call.self_cache || !embeddings || embeddings->key_tables.empty(),
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
  const MultiheadAttention* attention = self.layer(0).cross_attention();
  if (!attention) return 0;
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

void stack_forward(const TransformerStack& self, const py::object& x, const py::object& cu_seqlens,
                   const py::object& out, const py::object& memory,
                   const py::object& memory_cu_seqlens, const Masks& masks,
                   const Masks& memory_masks, const std::vector<Positions>& positions,
                   const std::vector<py::object>& head_masks,
                   const std::vector<py::object>& self_weights,
                   const std::vector<py::object>& cross_weights, CacheHandle* self_cache,
                   CacheHandle* cross_cache, int num_threads) {
  num_threads = threads_of_call(num_threads);
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
  const size_t memory_keys =
      set_memory(self, call, {memory, memory_cu_seqlens, memory_masks}, cross_cache, cu, memory_cu);
  call.places = places(self, positions, head_masks, self_weights, cross_weights, batch,
                       longest_sequence(cu), keys, memory_keys);
  check_cacheable(call);
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

void bind_nn_stack(py::module_& module) {
  bind_cache(module);

  py::class_<TransformerLayer, Shared<TransformerLayer>>(module, "TransformerLayer")
      .def(py::init(&make_layer), arg("self_attention").none(false), arg("cross_attention"),
           arg("feed_forward").none(false), arg("self_norm"), arg("cross_norm"),
           arg("feed_forward_norm"), py::kw_only(), arg("norm_first") = false,
           arg("residual") = true, arg("alpha") = 1.0f);

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
}

}  // namespace simdformer::bindings

// SPDX-License-Identifier: Apache-2.0
// Transformer layers, stacks of them, and the cache of a decoder.
#include <pybind11/stl.h>

#include <array>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/stack_arguments.h"
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

// A cache is written by one call at a time. The GIL protects the flag.
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

void stack_forward(const TransformerStack& self, const py::object& x, const py::object& cu_seqlens,
                   const py::object& out, const py::object& token_type_ids,
                   const py::object& memory, const py::object& memory_cu_seqlens,
                   const Masks& masks, const Masks& memory_masks,
                   const std::vector<Shared<Positions>>& positions, const Arrays& head_masks,
                   const Arrays& self_weights, const Arrays& cross_weights,
                   const Arrays& head_outputs,
                   const std::vector<std::vector<int32_t>>& weights_heads,
                   const Arrays& hidden_states, CacheHandle* self_cache, CacheHandle* cross_cache,
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
  const size_t memory_keys = set_memory(self, call, {memory, memory_cu_seqlens, memory_masks},
                                        cross_cache ? &cross_cache->cache : nullptr, cu, memory_cu);
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

// For each layer's self-attention: (num_heads, features of a head's output).
std::vector<std::pair<size_t, size_t>> layer_heads(const TransformerStack& self) {
  std::vector<std::pair<size_t, size_t>> result;
  for (size_t i = 0; i < self.num_layers(); ++i) {
    const MultiheadAttention& attention = self.layer(i).self_attention();
    const size_t heads = attention.num_heads();
    result.emplace_back(heads, attention.context_dim() / heads);
  }
  return result;
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
                                    const PositionWise& feed_forward, Shared<Norm> self_norm,
                                    Shared<Norm> cross_norm, Shared<Norm> feed_forward_norm,
                                    const std::array<Shared<Norm>, 3>& output_norms,
                                    bool norm_first, bool residual, bool output_residual,
                                    float alpha) {
  return std::make_shared<TransformerLayer>(
      TransformerLayer::Parts{
          .self_attention = self_attention->shared(),
          .cross_attention = cross_attention ? cross_attention->shared() : nullptr,
          .feed_forward = feed_forward,
          .self_norm = self_norm,
          .cross_norm = cross_norm,
          .feed_forward_norm = feed_forward_norm,
          .self_output_norm = output_norms[0],
          .cross_output_norm = output_norms[1],
          .feed_forward_output_norm = output_norms[2]},
      SublayerOptions{.norm_first = norm_first,
                      .residual = residual,
                      .output_residual = output_residual,
                      .alpha = alpha});
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
           arg("feed_forward_norm"), py::kw_only(),
           arg("output_norms") = std::array<Shared<Norm>, 3>{}, arg("norm_first") = false,
           arg("residual") = true, arg("output_residual") = false, arg("alpha") = 1.0f);

  const auto vocab_size = [](const TransformerStack& self) {
    return self.embeddings() ? self.embeddings()->vocab_size() : 0;
  };
  const auto num_token_types = [](const TransformerStack& self) {
    return self.embeddings() ? self.embeddings()->num_token_types() : 0;
  };
  py::class_<TransformerStack, Shared<TransformerStack>>(module, "TransformerStack")
      .def(py::init([](const std::vector<Shared<TransformerLayer>>& layers, Shared<Norm> norm,
                       Shared<Embeddings> embeddings) {
             return std::make_shared<TransformerStack>(constant("layers", layers), norm,
                                                       embeddings);
           }),
           arg("layers"), arg("norm") = py::none(), arg("embeddings") = py::none())
      .def_property_readonly("hidden_size", &TransformerStack::hidden_size)
      .def_property_readonly("num_layers", &TransformerStack::num_layers)
      .def_property_readonly("layer_heads", &layer_heads)
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
}

}  // namespace simdformer::bindings

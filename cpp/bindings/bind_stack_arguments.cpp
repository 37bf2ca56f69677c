// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/stack_arguments.h"

namespace simdformer::bindings {
namespace {

// The index of each head among the requested ones, -1 if it is not requested.
std::vector<int32_t> head_places(const std::vector<int32_t>& wanted, size_t heads) {
  std::vector<int32_t> places(heads, -1);
  for (size_t i = 0; i < wanted.size(); ++i) {
    check(wanted[i] >= 0 && static_cast<size_t>(wanted[i]) < heads, "weights_heads holds ",
          wanted[i], ", the layer has ", heads, " heads");
    places[static_cast<size_t>(wanted[i])] = static_cast<int32_t>(i);
  }
  return places;
}

}  // namespace

Source::Source(const TransformerStack& self, const py::object& x, const py::object& cu,
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

void Source::set(const TransformerStack& self, const py::object& x,
                 TransformerStack::Call& call) const {
  call.self.cu_q = call.self.cu_k = cu_seqlens;
  if (self.embeddings()) {
    call.ids = &batch;
  } else {
    call.rows = sequence_rows<const float>("x", x, cu_seqlens, self.hidden_size());
  }
}

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

std::vector<TransformerLayer::Taps> layer_taps(const TransformerStack& self,
                                               const LayerArguments& given, const CallSizes& sizes,
                                               std::vector<std::vector<int32_t>>& places) {
  const size_t layers = self.num_layers();
  const auto check_count = [&](const char* name, size_t count) {
    check(count == 0 || count == layers, name, " must have one element per layer, ", layers,
          ", got ", count);
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

std::vector<Matrix> hidden_states_output(const TransformerStack& self, const Arrays& arrays,
                                         size_t tokens) {
  const size_t count = self.num_layers() + 1;
  check(arrays.empty() || arrays.size() == count, "hidden_states must have ", count,
        " elements, got ", arrays.size());
  std::vector<Matrix> result;
  for (const py::object& array : arrays) {
    result.push_back(packed_output("hidden_states", array, tokens, self.hidden_size()));
  }
  return result;
}

size_t max_length(const KVCache& cache) {
  size_t result = 0;
  for (size_t s = 0; s < cache.size(); ++s) result = std::max(result, cache.length(s));
  return result;
}

void check_cacheable(const TransformerStack& self, const TransformerStack::Call& call) {
  if (!call.self_cache) return;
  for (size_t i = 0; i < self.num_layers(); ++i) {
    const Positions* position = self.layer(i).self_attention().position();
    if (!call.taps.empty() && call.taps[i].position) position = call.taps[i].position;
    check(!position || !position->embeddings || position->embeddings->key_tables.empty(),
          "positions that meet the keys (DeBERTa's p2c) cannot be used with a cache");
  }
}

size_t set_memory(const TransformerStack& self, TransformerStack::Call& call, const Memory& memory,
                  KVCache* cache, const std::vector<int32_t>& cu, std::vector<int32_t>& memory_cu) {
  if (!self.has_cross_attention()) return 0;
  const MultiheadAttention* attention = self.layer(0).cross_attention();
  size_t keys = 0;
  if (cache) {
    call.cross_cache = cache;
    check(call.cross_cache->size() == cu.size() - 1, "the memory's cache holds ",
          call.cross_cache->size(), " sequences, the call has ", cu.size() - 1);
    keys = max_length(*call.cross_cache);
  }
  if (memory.rows.is_none()) {
    check(keys > 0, "memory is required: the cache contains none");
  } else {
    check(keys == 0, "the cache already contains a memory");
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

}  // namespace simdformer::bindings

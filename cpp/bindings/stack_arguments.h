// SPDX-License-Identifier: Apache-2.0
// Arguments of a stack: the source of its rows, and the requested results of each layer.
#pragma once

#include "bindings/nn_arguments.h"
#include "layers/stack/transformer_stack.h"

namespace simdformer::bindings {

using Arrays = std::vector<py::object>;  // arrays or None

// The source of a call: ids for the stack's embeddings, or rows.
struct Source {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> token_type_ids;
  std::vector<int32_t> cu_seqlens;
  Batch batch;

  Source(const TransformerStack& self, const py::object& x, const py::object& cu,
         const py::object& types);
  size_t size() const { return cu_seqlens.size() - 1; }
  void set(const TransformerStack& self, const py::object& x, TransformerStack::Call& call) const;
};

// The requested results of the layers, one element per layer if not empty.
struct LayerArguments {
  const std::vector<Shared<Positions>>& positions;
  const Arrays& head_masks;
  const Arrays& self_weights;
  const Arrays& cross_weights;
  const Arrays& head_outputs;
  const std::vector<std::vector<int32_t>>& weights_heads;  // the heads whose weights are requested
};

struct CallSizes {
  size_t batch;
  size_t tokens;
  size_t queries;  // of the longest sequence
  size_t keys;
  size_t memory_keys;
};

// A packed output, (tokens, cols) float32; no data for None.
Matrix packed_output(const char* name, const py::object& object, size_t tokens, size_t cols);

// Checks the arguments of the layers for one call. `places` must outlive it.
std::vector<TransformerLayer::Taps> layer_taps(const TransformerStack& self,
                                               const LayerArguments& given, const CallSizes& sizes,
                                               std::vector<std::vector<int32_t>>& places);

std::vector<Matrix> hidden_states_output(const TransformerStack& self, const Arrays& arrays,
                                         size_t tokens);

size_t max_length(const KVCache& cache);

// A cache stores keys packed for products with queries, not as rows.
void check_cacheable(const TransformerStack& self, const TransformerStack::Call& call);

struct Memory {
  const py::object& rows;
  const py::object& cu_seqlens;
  const Masks& masks;
};

// The input of cross-attention: the given rows, or those of a cache. memory_cu must outlive the
// call. Returns the number of keys of the longest memory.
size_t set_memory(const TransformerStack& self, TransformerStack::Call& call, const Memory& memory,
                  KVCache* cache, const std::vector<int32_t>& cu, std::vector<int32_t>& memory_cu);

}  // namespace simdformer::bindings

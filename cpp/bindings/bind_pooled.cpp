// SPDX-License-Identifier: Apache-2.0
// Functions that give each text a row: a stack with embeddings and a head after it, and scores of
// token vectors.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/stack_arguments.h"
#include "layers/parts/max_sim.h"
#include "model_file/writer.h"

namespace simdformer::bindings {
namespace {

using py::arg;

// Pooled vectors, for encoding texts.
struct PooledStack {
  Shared<TransformerStack> stack;
  PoolingHead head;

  size_t embedding_dimension() const { return head.embedding_dimension(); }
  model_file::ModelView view() const { return {.stack = *stack, .pooling = &head}; }
  PooledSink sink(const Source& source, size_t pooling_start, Matrix out) const {
    return {source.cu_seqlens, head, pooling_start, out};
  }
};

// Rows over the vocabulary.
struct VocabularyStack {
  Shared<TransformerStack> stack;
  VocabularyHead head;

  size_t embedding_dimension() const { return head.out_features(); }
  model_file::ModelView view() const { return {.stack = *stack, .vocabulary = &head}; }
  VocabularySink sink(const Source& source, size_t, Matrix out) const {
    return {source.cu_seqlens, head, out};
  }
};

template <typename Stack>
FloatArray encode(const Stack& self, const py::object& input_ids, const py::object& cu_seqlens,
                  const py::object& token_type_ids, size_t pooling_start, const Arrays& head_masks,
                  const Arrays& self_weights,
                  const std::vector<std::vector<int32_t>>& weights_heads,
                  const Arrays& head_outputs, const Arrays& hidden_states, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const Source source(*self.stack, input_ids, cu_seqlens, token_type_ids);
  TransformerStack::Call call;
  source.set(*self.stack, input_ids, call);
  const size_t tokens = source.input_ids.size();
  const size_t longest = longest_sequence(source.cu_seqlens);
  std::vector<std::vector<int32_t>> places;
  call.taps =
      layer_taps(*self.stack, {{}, head_masks, self_weights, {}, head_outputs, weights_heads},
                 {source.size(), tokens, longest, longest, 0}, places);
  call.hidden_states = hidden_states_output(*self.stack, hidden_states, tokens);
  FloatArray out = empty_matrix(source.size(), self.embedding_dimension());
  auto sink = self.sink(source, pooling_start, mutable_matrix(out));
  without_gil([&](const StopCheck& stop_check) {
    self.stack->forward(call, num_threads, stop_check, sink);
  });
  return out;
}

// columns: the number that a row keeps, 0 for all.
template <typename Stack>
void save(const Stack& self, const py::object& write, size_t columns,
          const std::string& activation) {
  const size_t width = self.embedding_dimension();
  check(columns <= width, "columns is ", columns, ", rows have ", width);
  model_file::ModelView view = self.view();
  view.output = {.columns = columns == 0 ? width : columns,
                 .activation = by_name("activation", activation, kActivations)};
  model_file::write_model(view, [&](const void* data, size_t size) {
    write(py::memoryview::from_memory(data, static_cast<py::ssize_t>(size)));
  });
}

std::vector<Pooling> poolings(const std::vector<std::string>& names) {
  std::vector<Pooling> modes;
  for (const auto& name : names) modes.push_back(by_name("pooling mode", name, kPoolings));
  return modes;
}

// Applies the head of PooledStack to rows that were computed elsewhere.
FloatArray pool_rows(const py::object& rows, const py::object& cu_seqlens,
                     const std::vector<std::string>& pooling, size_t pooling_start,
                     bool normalize) {
  const FloatArray x = float_array("rows", rows, 2);
  const std::vector<int32_t> cu = offsets("cu_seqlens", cu_seqlens);
  const ConstMatrix all = matrix(x);
  check(static_cast<size_t>(cu.back()) == all.rows, "cu_seqlens must end with the number of rows, ",
        all.rows, ", got ", cu.back());
  const PoolingHead head(all.cols, poolings(pooling), {}, normalize);
  FloatArray out = empty_matrix(cu.size() - 1, head.embedding_dimension());
  const Matrix pooled = mutable_matrix(out);
  without_gil([&](const StopCheck&) {
    Buffer<float> scratch;
    scratch.reserve(head.scratch_size());
    for (size_t s = 0; s < pooled.rows; ++s) {
      const ConstMatrix sequence = all.slice(static_cast<size_t>(cu[s]), sequence_length(cu, s));
      head.forward(sequence, pooling_start, scratch.data(), pooled.row(s));
    }
  });
  return out;
}

void check_stack(const char* name, const TransformerStack& stack) {
  check(stack.embeddings() != nullptr, name, ": the stack has no embeddings");
  check(!stack.has_cross_attention(), name, ": the stack has cross-attention");
}

Shared<PooledStack> make_pooled_stack(const Shared<TransformerStack>& stack,
                                      const std::vector<std::string>& pooling,
                                      const std::vector<Dense>& dense, bool normalize) {
  check_stack("PooledStack", *stack);
  return std::make_shared<PooledStack>(
      PooledStack{stack, PoolingHead(stack->hidden_size(), poolings(pooling), dense, normalize)});
}

// vocabulary: null for the layer that holds the word embeddings.
Shared<VocabularyStack> make_vocabulary_stack(const Shared<TransformerStack>& stack,
                                              const Shared<Linear>& vocabulary,
                                              const py::object& bias,
                                              const std::optional<Dense>& transform, bool sums,
                                              int logarithms) {
  check_stack("VocabularyStack", *stack);
  const std::shared_ptr<const Linear> own =
      vocabulary ? std::shared_ptr<const Linear>(vocabulary) : stack->embeddings()->head();
  check(own != nullptr, "VocabularyStack: vocabulary is None, and no layer stands for the words");
  Buffer<float> biases;
  if (!bias.is_none()) biases = copied(float_array("bias", bias, 1));
  auto made = std::make_shared<VocabularyStack>(
      VocabularyStack{stack, VocabularyHead(transform, own, std::move(biases), sums, logarithms)});
  check(made->head.in_features() == stack->hidden_size(), "VocabularyStack: the head takes ",
        made->head.in_features(), " features, the stack gives ", stack->hidden_size());
  return made;
}

FloatArray late_interaction(const py::object& queries, const py::object& query_offsets,
                            const py::object& documents, const py::object& document_offsets,
                            bool mean, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const auto check_end = [](const char* name, const std::vector<int32_t>& cu, ConstMatrix rows) {
    check(static_cast<size_t>(cu.back()) == rows.rows, name, " must end with the number of rows, ",
          rows.rows, ", got ", cu.back());
  };
  const FloatArray q = float_array("queries", queries, 2);
  const FloatArray d = float_array("documents", documents, 2);
  check(q.shape(1) == d.shape(1), "queries have ", q.shape(1), " features, documents ", d.shape(1));
  const std::vector<int32_t> query_cu = offsets("query_offsets", query_offsets);
  const std::vector<int32_t> document_cu = offsets("document_offsets", document_offsets);
  check_end("query_offsets", query_cu, matrix(q));
  check_end("document_offsets", document_cu, matrix(d));
  for (size_t s = 0; s + 1 < document_cu.size(); ++s) {
    check(sequence_length(document_cu, s) > 0, "documents[", s, "] has no tokens");
  }
  for (size_t s = 0; mean && s + 1 < query_cu.size(); ++s) {
    check(sequence_length(query_cu, s) > 0, "queries[", s, "] has no tokens to take the mean of");
  }
  FloatArray out = empty_matrix(query_cu.size() - 1, document_cu.size() - 1);
  const Matrix scores = mutable_matrix(out);
  without_gil([&](const StopCheck& stop_check) {
    max_sim({matrix(q), query_cu}, {matrix(d), document_cu}, mean, num_threads, stop_check, scores);
  });
  return out;
}

template <typename Stack>
void def_encode(py::class_<Stack, Shared<Stack>>& type) {
  type.def_property_readonly("embedding_dimension", &Stack::embedding_dimension)
      .def("encode", &encode<Stack>, arg("input_ids"), arg("cu_seqlens"),
           arg("token_type_ids") = py::none(), py::kw_only(), arg("pooling_start") = 0,
           arg("head_masks") = Arrays{}, arg("self_weights") = Arrays{},
           arg("weights_heads") = std::vector<std::vector<int32_t>>{},
           arg("head_outputs") = Arrays{}, arg("hidden_states") = Arrays{}, arg("num_threads") = 0)
      .def("save", &save<Stack>, arg("write"), py::kw_only(), arg("columns") = 0,
           arg("activation") = "identity");
}

}  // namespace

void bind_pooled(py::module_& module) {
  py::class_<PooledStack, Shared<PooledStack>> pooled(module, "PooledStack");
  pooled.def(py::init(&make_pooled_stack), arg("stack").none(false), arg("pooling"),
             arg("dense") = std::vector<Dense>{}, py::kw_only(), arg("normalize") = false);
  def_encode(pooled);
  py::class_<VocabularyStack, Shared<VocabularyStack>> vocabulary(module, "VocabularyStack");
  vocabulary.def(py::init(&make_vocabulary_stack), arg("stack").none(false), arg("vocabulary"),
                 arg("bias") = py::none(), arg("transform") = py::none(), py::kw_only(),
                 arg("sums") = false, arg("logarithms") = 1);
  def_encode(vocabulary);
  module.def("pool_rows", &pool_rows, arg("rows"), arg("cu_seqlens"), arg("pooling"), py::kw_only(),
             arg("pooling_start") = 0, arg("normalize") = false);
  module.def("max_sim", &late_interaction, arg("queries"), arg("query_offsets"), arg("documents"),
             arg("document_offsets"), py::kw_only(), arg("mean") = false, arg("num_threads") = 0);
}

}  // namespace simdformer::bindings

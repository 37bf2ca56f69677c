// SPDX-License-Identifier: Apache-2.0
// Encoders, from token ids to hidden states or embeddings, and their layers.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/numpy.h"
#include "layers/stack/encoder.h"

namespace simdformer::bindings {
namespace {

using py::arg;

struct BatchArrays {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> token_type_ids;
  std::vector<int32_t> cu_seqlens;

  BatchArrays(const py::object& ids, const py::object& cu, const py::object& types)
      : input_ids(id_vector("input_ids", ids)), cu_seqlens(id_vector("cu_seqlens", cu)) {
    if (!types.is_none()) token_type_ids = id_vector("token_type_ids", types);
    check(!cu_seqlens.empty(), "cu_seqlens must have at least one element, the leading 0");
    check(types.is_none() || token_type_ids.size() == input_ids.size(), "token_type_ids has ",
          token_type_ids.size(), " elements, input_ids has ", input_ids.size());
  }
  Batch view() const { return {input_ids, token_type_ids, cu_seqlens}; }
  size_t size() const { return cu_seqlens.size() - 1; }
};

FloatArray encoder_forward(const Encoder& self, const py::object& input_ids,
                           const py::object& cu_seqlens, const py::object& token_type_ids,
                           int num_threads) {
  num_threads = threads_of_call(num_threads);
  const BatchArrays arrays(input_ids, cu_seqlens, token_type_ids);
  const Batch batch = arrays.view();
  FloatArray out = empty_matrix(arrays.input_ids.size(), self.hidden_size());
  const Matrix rows = mutable_matrix(out);
  without_gil([&](const StopCheck& stop_check) {
    self.forward(
        batch, num_threads, stop_check, [&](size_t, size_t sequence, ConstMatrix hidden_states) {
          for (size_t i = 0; i < hidden_states.rows; ++i) {
            std::copy_n(hidden_states.row(i), rows.cols, rows.row(batch.begin(sequence) + i));
          }
        });
  });
  return out;
}

FloatArray sentence_forward(const SentenceEncoder& self, const py::object& input_ids,
                            const py::object& cu_seqlens, const py::object& token_type_ids,
                            size_t pooling_start, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const BatchArrays arrays(input_ids, cu_seqlens, token_type_ids);
  FloatArray out = empty_matrix(arrays.size(), self.embedding_dimension());
  const Matrix rows = mutable_matrix(out);
  without_gil([&](const StopCheck& stop_check) {
    self.forward(arrays.view(), pooling_start, num_threads, stop_check, rows);
  });
  return out;
}

std::shared_ptr<SentenceEncoder> make_sentence_encoder(const std::shared_ptr<Encoder>& encoder,
                                                       const std::vector<std::string>& pooling,
                                                       const std::vector<Dense>& dense,
                                                       bool normalize) {
  std::vector<Pooling> modes;
  for (const auto& name : pooling) modes.push_back(by_name("pooling mode", name, kPoolings));
  return std::make_shared<SentenceEncoder>(
      encoder, SentenceHead(encoder->hidden_size(), modes, dense, normalize));
}

std::shared_ptr<RotaryTable> make_rotary_table(const py::object& cos, const py::object& sin) {
  const FloatArray c = float_array("cos", cos, 2);
  const FloatArray s = float_array("sin", sin, 2);
  check(s.shape(0) == c.shape(0) && s.shape(1) == c.shape(1), "cos has shape ", shape_of(c),
        ", sin ", shape_of(s));
  check(c.size() > 0, "cos is empty");
  return std::make_shared<RotaryTable>(RotaryTable{.cos = copied(c),
                                                   .sin = copied(s),
                                                   .positions = static_cast<size_t>(c.shape(0)),
                                                   .pairs = static_cast<size_t>(c.shape(1))});
}

void bind_encoder_layers(py::module_& module) {
  py::class_<EncoderLayer, std::shared_ptr<EncoderLayer>>(module, "EncoderLayer");

  py::class_<PostNormLayer, EncoderLayer, std::shared_ptr<PostNormLayer>>(module, "PostNormLayer")
      .def(py::init([](std::shared_ptr<SelfAttention> attention,
                       std::shared_ptr<LayerNorm> attention_norm,
                       std::shared_ptr<FeedForward> feed_forward,
                       std::shared_ptr<LayerNorm> output_norm) {
             return std::make_shared<PostNormLayer>(attention, attention_norm, feed_forward,
                                                    output_norm);
           }),
           arg("attention").none(false), arg("attention_norm").none(false),
           arg("feed_forward").none(false), arg("output_norm").none(false));

  py::class_<RotaryTable, std::shared_ptr<RotaryTable>>(module, "RotaryTable")
      .def(py::init(&make_rotary_table), arg("cos"), arg("sin"));

  py::class_<RotaryLayer, EncoderLayer, std::shared_ptr<RotaryLayer>>(module, "RotaryLayer")
      .def(
          py::init([](std::shared_ptr<TransformerLayer> layer, std::shared_ptr<RotaryTable> table) {
            return std::make_shared<RotaryLayer>(layer, table);
          }),
          arg("layer").none(false), arg("table").none(false));
}

}  // namespace

void bind_encoder(py::module_& module) {
  bind_encoder_layers(module);

  py::class_<Encoder, std::shared_ptr<Encoder>>(module, "Encoder")
      .def(py::init([](std::shared_ptr<Embeddings> embeddings,
                       const std::vector<std::shared_ptr<EncoderLayer>>& layers,
                       std::shared_ptr<Norm> norm) {
             return std::make_shared<Encoder>(embeddings, constant("layers", layers), norm);
           }),
           arg("embeddings").none(false), arg("layers"), arg("norm") = py::none())
      .def_property_readonly("hidden_size", &Encoder::hidden_size)
      .def_property_readonly("vocab_size",
                             [](const Encoder& self) { return self.embeddings().vocab_size(); })
      .def_property_readonly("max_positions", &Encoder::max_positions)
      .def_property_readonly(
          "num_token_types",
          [](const Encoder& self) { return self.embeddings().num_token_types(); })
      .def("forward", &encoder_forward, arg("input_ids"), arg("cu_seqlens"),
           arg("token_type_ids") = py::none(), py::kw_only(), arg("num_threads") = 0);

  py::class_<SentenceEncoder, std::shared_ptr<SentenceEncoder>>(module, "SentenceEncoder")
      .def(py::init(&make_sentence_encoder), arg("encoder").none(false), arg("pooling"),
           arg("dense") = std::vector<Dense>{}, py::kw_only(), arg("normalize") = false)
      .def_property_readonly("embedding_dimension", &SentenceEncoder::embedding_dimension)
      .def("forward", &sentence_forward, arg("input_ids"), arg("cu_seqlens"),
           arg("token_type_ids") = py::none(), py::kw_only(), arg("pooling_start") = 0,
           arg("num_threads") = 0);
}

}  // namespace simdformer::bindings

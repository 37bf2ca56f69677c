// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/numpy.h"
#include "bindings/s8_arrays.h"
#include "layers/encoder.h"

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

template <Storage storage>
std::shared_ptr<Linear> make_linear(const py::object& weight, const py::object& bias) {
  const FloatArray w = float_array("weight", weight, 2);
  const OptionalVector b("bias", bias, static_cast<size_t>(w.shape(0)));
  const py::gil_scoped_release release;
  return std::make_shared<Linear>(matrix(w), b.data(), storage);
}

std::shared_ptr<Linear> make_int8_linear(const py::object& values, const py::object& scale,
                                         const py::object& bias, const py::object& outliers,
                                         const py::object& outlier_weight) {
  const S8Arrays weight(values, scale, outliers, outlier_weight);
  const OptionalVector b("bias", bias, weight.rows());
  const py::gil_scoped_release release;
  return std::make_shared<Linear>(weight.view(), b.data());
}

FloatArray take_inputs(Linear& self) {
  const std::vector<float> values = self.take_inputs();
  FloatArray rows = empty_matrix(values.size() / self.in_features(), self.in_features());
  std::copy(values.begin(), values.end(), rows.mutable_data());
  return rows;
}

std::shared_ptr<LayerNorm> make_layer_norm(const py::object& weight, const py::object& bias,
                                           float eps) {
  const FloatArray w = float_array("weight", weight, 1);
  const auto size = static_cast<size_t>(w.size());
  return std::make_shared<LayerNorm>(size, w.data(), OptionalVector("bias", bias, size).data(),
                                     eps);
}

std::shared_ptr<Embeddings> make_embeddings(const py::object& word, const py::object& position,
                                            const py::object& token_type,
                                            const std::shared_ptr<LayerNorm>& norm,
                                            std::optional<size_t> padding_idx) {
  std::vector<FloatArray> arrays;
  const auto table = [&](const char* name, const py::object& object) -> ConstMatrix {
    if (object.is_none()) return {};
    arrays.push_back(float_array(name, object, 2));
    return matrix(arrays.back());
  };
  return std::make_shared<Embeddings>(table("word", word), table("position", position),
                                      table("token_type", token_type), norm, padding_idx);
}

FloatArray encoder_forward(const Encoder& self, const py::object& input_ids,
                           const py::object& cu_seqlens, const py::object& token_type_ids,
                           int num_threads) {
  check_num_threads(num_threads);
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
  check_num_threads(num_threads);
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

void bind_parts(py::module_& module) {
  py::class_<Linear, std::shared_ptr<Linear>>(module, "Linear")
      .def(py::init(&make_linear<Storage::kFloat32>), arg("weight"), arg("bias") = py::none())
      .def_static("in_bfloat16", &make_linear<Storage::kBfloat16>, arg("weight"),
                  arg("bias") = py::none())
      .def_static("from_int8", &make_int8_linear, arg("values"), arg("scale"),
                  arg("bias") = py::none(), arg("outliers") = py::none(),
                  arg("outlier_weight") = py::none())
      .def("record_inputs", &Linear::record_inputs)
      .def("take_inputs", &take_inputs)
      .def_property_readonly("in_features", &Linear::in_features)
      .def_property_readonly("out_features", &Linear::out_features);

  py::class_<LayerNorm, std::shared_ptr<LayerNorm>>(module, "LayerNorm")
      .def(py::init(&make_layer_norm), arg("weight"), arg("bias") = py::none(), py::kw_only(),
           arg("eps") = 1e-5f);

  py::class_<Embeddings, std::shared_ptr<Embeddings>>(module, "Embeddings")
      .def(py::init(&make_embeddings), arg("word"), arg("position") = py::none(),
           arg("token_type") = py::none(), arg("norm") = py::none(), py::kw_only(),
           arg("padding_idx") = py::none())
      .def_property_readonly("max_positions", &Embeddings::max_positions);
}

void bind_sublayers(py::module_& module) {
  py::class_<RelativeBias, std::shared_ptr<RelativeBias>>(module, "RelativeBias")
      .def(py::init([](const py::object& bias) {
             return std::make_shared<RelativeBias>(matrix(float_array("bias", bias, 2)));
           }),
           arg("bias"));

  py::class_<SelfAttention, std::shared_ptr<SelfAttention>>(module, "SelfAttention")
      .def(py::init([](std::shared_ptr<Linear> qkv, std::shared_ptr<Linear> output,
                       size_t num_heads, std::shared_ptr<RelativeBias> relative_bias) {
             return std::make_shared<SelfAttention>(qkv, output, num_heads, relative_bias);
           }),
           arg("qkv").none(false), arg("output").none(false), py::kw_only(), arg("num_heads"),
           arg("relative_bias") = py::none());

  py::class_<FeedForward, std::shared_ptr<FeedForward>>(module, "FeedForward")
      .def(py::init([](std::shared_ptr<Linear> up, std::shared_ptr<Linear> down,
                       const std::string& activation, std::shared_ptr<Linear> gate) {
             return std::make_shared<FeedForward>(
                 up, down, by_name("activation", activation, kActivations), gate);
           }),
           arg("up").none(false), arg("down").none(false), py::kw_only(), arg("activation"),
           arg("gate") = py::none());

  py::class_<Dense>(module, "Dense")
      .def(py::init(
               [](std::shared_ptr<Linear> linear, const std::string& activation, bool residual) {
                 return Dense{linear, by_name("activation", activation, kActivations), residual};
               }),
           arg("linear").none(false), py::kw_only(), arg("activation") = "identity",
           arg("residual") = false);
}

}  // namespace

void bind_layers(py::module_& module) {
  bind_parts(module);
  bind_sublayers(module);

  py::class_<EncoderLayer, std::shared_ptr<EncoderLayer>>(module, "EncoderLayer")
      .def(py::init([](std::shared_ptr<SelfAttention> attention,
                       std::shared_ptr<LayerNorm> attention_norm,
                       std::shared_ptr<FeedForward> feed_forward,
                       std::shared_ptr<LayerNorm> output_norm) {
             return std::make_shared<EncoderLayer>(attention, attention_norm, feed_forward,
                                                   output_norm);
           }),
           arg("attention").none(false), arg("attention_norm").none(false),
           arg("feed_forward").none(false), arg("output_norm").none(false));

  py::class_<Encoder, std::shared_ptr<Encoder>>(module, "Encoder")
      .def(py::init([](std::shared_ptr<Embeddings> embeddings,
                       const std::vector<std::shared_ptr<EncoderLayer>>& layers) {
             return std::make_shared<Encoder>(embeddings, constant("layers", layers));
           }),
           arg("embeddings").none(false), arg("layers"))
      .def_property_readonly("hidden_size", &Encoder::hidden_size)
      .def_property_readonly("vocab_size",
                             [](const Encoder& self) { return self.embeddings().vocab_size(); })
      .def_property_readonly("max_positions",
                             [](const Encoder& self) { return self.embeddings().max_positions(); })
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

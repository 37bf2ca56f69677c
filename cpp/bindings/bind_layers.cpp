// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <tuple>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/numpy.h"
#include "bindings/s8_arrays.h"
#include "layers/parts/embeddings.h"
#include "layers/parts/experts.h"
#include "layers/parts/feed_forward.h"
#include "layers/parts/pooling.h"
#include "layers/parts/row_shares.h"

namespace simdformer::bindings {
namespace {

using py::arg;

template <Storage storage>
std::shared_ptr<Linear> make_linear(const py::object& weight, const py::object& bias) {
  const FloatArray w = float_array("weight", weight, 2);
  const OptionalVector b("bias", bias, static_cast<size_t>(w.shape(0)));
  const GilRelease release;
  return std::make_shared<Linear>(matrix(w), b.data(), storage);
}

std::shared_ptr<Linear> make_int8_linear(const py::object& values, const py::object& scale,
                                         const py::object& bias, const py::object& outliers,
                                         const py::object& outlier_weight, bool rotated) {
  const S8Arrays weight(values, scale, outliers, outlier_weight, rotated);
  const OptionalVector b("bias", bias, weight.rows());
  const GilRelease release;
  return std::make_shared<Linear>(weight.view(), b.data());
}

FloatArray take_inputs(Linear& self) {
  const std::vector<float> values = self.take_inputs();
  FloatArray rows = empty_matrix(values.size() / self.in_features(), self.in_features());
  std::copy(values.begin(), values.end(), rows.mutable_data());
  return rows;
}

FloatArray unpacked_weight(const Linear& self) {
  FloatArray weight = empty_matrix(self.out_features(), self.in_features());
  const Matrix rows = mutable_matrix(weight);
  {
    const GilRelease release;
    self.unpack(rows);
  }
  return weight;
}

py::object bias_of(const Linear& self) {
  const std::span<const float> bias = self.bias();
  if (bias.empty()) return py::none();
  FloatArray copy(static_cast<py::ssize_t>(bias.size()));
  std::copy(bias.begin(), bias.end(), copy.mutable_data());
  return copy;
}

template <typename T>
py::array_t<T> array_of(const Buffer<T>& buffer, std::vector<size_t> shape) {
  py::array_t<T> array(shape);
  std::copy_n(buffer.data(), buffer.size(), array.mutable_data());
  return array;
}

// values, scale, outliers, outlier_weight and rotated, as for from_int8.
py::tuple unpacked_int8(const Linear& self) {
  const S8Numbers numbers = [&] {
    const GilRelease release;
    return self.unpack_int8();
  }();
  const size_t rows = self.out_features();
  const size_t count = numbers.outliers.size();
  return py::make_tuple(array_of(numbers.values, {rows, self.in_features()}),
                        array_of(numbers.scale, {rows, num_s8_groups(self.in_features())}),
                        array_of(numbers.outliers, {count}),
                        array_of(numbers.outlier_weight, {rows, count}), numbers.rotated);
}

const char* compute_type(const Linear& self) {
  if (self.is_int8()) return "int8";
  return self.is_bfloat16() ? "bfloat16" : "float32";
}

std::shared_ptr<LayerNorm> make_layer_norm(const py::object& weight, const py::object& bias,
                                           float eps) {
  const FloatArray w = float_array("weight", weight, 1);
  const auto size = static_cast<size_t>(w.size());
  return std::make_shared<LayerNorm>(size, w.data(), OptionalVector("bias", bias, size).data(),
                                     eps);
}

// word: float32, or the tuple of a matrix in int8, which must not be rotated.
Table make_table(const py::object& word, bool bfloat16) {
  if (py::isinstance<py::tuple>(word)) {
    using Arrays = std::tuple<py::object, py::object, py::object, py::object, bool>;
    const auto [values, scale, outliers, outlier_weight, rotated] = word.cast<Arrays>();
    check(!rotated, "word: a table cannot be rotated");
    return Table(S8Arrays(values, scale, outliers, outlier_weight, rotated).view());
  }
  const FloatArray rows = float_array("word", word, 2);
  return bfloat16 ? Table::in_bfloat16(matrix(rows)) : Table(matrix(rows));
}

std::shared_ptr<Embeddings> make_embeddings(const py::object& word, const py::object& position,
                                            const py::object& token_type,
                                            const std::shared_ptr<LayerNorm>& norm,
                                            std::optional<size_t> padding_idx,
                                            const std::shared_ptr<Linear>& projection,
                                            bool bfloat16) {
  std::vector<FloatArray> arrays;
  const auto table = [&](const char* name, const py::object& object) -> ConstMatrix {
    if (object.is_none()) return {};
    arrays.push_back(float_array(name, object, 2));
    return matrix(arrays.back());
  };
  std::shared_ptr<Linear> head;
  if (py::isinstance<Linear>(word)) head = word.cast<std::shared_ptr<Linear>>();
  return std::make_shared<Embeddings>(head ? Table() : make_table(word, bfloat16), head,
                                      table("position", position), table("token_type", token_type),
                                      norm, padding_idx, projection);
}

std::shared_ptr<Experts> make_experts(const std::shared_ptr<Linear>& router,
                                      const std::vector<std::shared_ptr<FeedForward>>& experts,
                                      const py::object& bias, size_t top_k) {
  Experts::Parts parts{
      .router = router, .experts = {experts.begin(), experts.end()}, .bias = {}, .top_k = top_k};
  if (!bias.is_none()) {
    const FloatArray given = float_array("bias", bias, 1);
    parts.bias = Buffer<float>(static_cast<size_t>(given.size()));
    std::copy_n(given.data(), given.size(), parts.bias.data());
  }
  return std::make_shared<Experts>(std::move(parts));
}

// The cost of each share of a product of rows with panels, in rows times panels, as split for a
// team of this size.
std::vector<size_t> product_shares(size_t rows, size_t panels, size_t team_size) {
  check(rows > 0 && panels > 0 && team_size > 0, "product_shares: sizes must be positive");
  const size_t blocks = num_row_blocks(rows, team_size);
  std::vector<size_t> costs;
  if (blocks >= team_size) {
    for (size_t share = 0; share < team_size; ++share) {
      const size_t first = blocks * share / team_size * rows / blocks;
      const size_t last = blocks * (share + 1) / team_size * rows / blocks;
      costs.push_back((last - first) * panels);
    }
    return costs;
  }
  const PanelShares split(rows, panels, team_size);
  for (size_t share = 0; share < split.shares; ++share) {
    size_t cost = 0;
    for (size_t item = split.first_item(share); item < split.first_item(share + 1); ++item) {
      const size_t block = item / panels;
      cost += split.first_row(block + 1, rows) - split.first_row(block, rows);
    }
    costs.push_back(cost);
  }
  return costs;
}

// The same for the rows of `items` items, each with this number of rows.
std::vector<size_t> row_shares(size_t items, size_t rows, size_t team_size) {
  check(items > 0 && team_size > 0, "row_shares: sizes must be positive");
  const RowShares split{items, team_size};
  std::vector<size_t> costs;
  for (size_t share = 0; share < split.shares; ++share) {
    size_t cost = 0;
    for (size_t item = split.first_item(share); split.reaches(share, item); ++item) {
      cost += split.rows_in(share, item, rows).rows;
    }
    costs.push_back(cost);
  }
  return costs;
}

// A read-only view of numbers that belong to `owner`.
template <typename T>
py::object view_of(const T* data, size_t rows, size_t cols, const py::object& owner) {
  py::array_t<T, py::array::c_style> view({rows, cols}, data, owner);
  view.attr("setflags")(arg("write") = false);
  return view;
}

// Read-only views of the table of words, by type: float32, the upper halves of float32, or the
// values and the scale of int8. None if there is no table.
py::object word_of(const py::object& self) {
  const Table& table = self.cast<const Embeddings&>().word();
  const size_t rows = table.rows();
  const size_t cols = table.cols();
  if (rows == 0) return py::none();
  const TableRows view = table.view();
  if (view.float32) return view_of(view.float32, rows, cols, self);
  if (view.bfloat16) return view_of(view.bfloat16, rows, cols, self);
  return py::make_tuple(view_of(view.values, rows, cols, self),
                        view_of(view.scale, rows, num_s8_groups(cols), self));
}

// A read-only view of a table; None if there is no table.
template <ConstMatrix (Embeddings::*table)() const>
py::object table_of(const py::object& self) {
  const ConstMatrix rows = (self.cast<const Embeddings&>().*table)();
  return rows.rows == 0 ? py::none() : view_of(rows.data, rows.rows, rows.cols, self);
}

void bind_parts(py::module_& module) {
  module.def("product_shares", &product_shares, arg("rows"), arg("panels"), arg("team_size"));
  module.def("row_shares", &row_shares, arg("items"), arg("rows"), arg("team_size"));

  py::class_<Linear, std::shared_ptr<Linear>>(module, "Linear")
      .def(py::init(&make_linear<Storage::kFloat32>), arg("weight"), arg("bias") = py::none())
      .def_static("in_bfloat16", &make_linear<Storage::kBfloat16>, arg("weight"),
                  arg("bias") = py::none())
      .def_static("from_int8", &make_int8_linear, arg("values"), arg("scale"),
                  arg("bias") = py::none(), arg("outliers") = py::none(),
                  arg("outlier_weight") = py::none(), arg("rotated") = false)
      .def("record_inputs", &Linear::record_inputs)
      .def("take_inputs", &take_inputs)
      .def("weight", &unpacked_weight)
      .def("bias", &bias_of)
      .def("int8", &unpacked_int8)
      .def_property_readonly("compute_type", &compute_type)
      .def_property_readonly("in_features", &Linear::in_features)
      .def_property_readonly("out_features", &Linear::out_features);

  py::class_<LayerNorm, std::shared_ptr<LayerNorm>>(module, "LayerNorm")
      .def(py::init(&make_layer_norm), arg("weight"), arg("bias") = py::none(), py::kw_only(),
           arg("eps") = 1e-5f);

  py::class_<Embeddings, std::shared_ptr<Embeddings>>(module, "Embeddings")
      .def(py::init(&make_embeddings), arg("word"), arg("position") = py::none(),
           arg("token_type") = py::none(), arg("norm") = py::none(), py::kw_only(),
           arg("padding_idx") = py::none(), arg("projection") = py::none(), arg("bfloat16") = false)
      .def("word", &word_of)
      .def("position", &table_of<&Embeddings::position>)
      .def("token_type", &table_of<&Embeddings::token_type>)
      .def_property_readonly("max_positions", &Embeddings::max_positions);
}

void bind_sublayers(py::module_& module) {
  py::class_<FeedForward, std::shared_ptr<FeedForward>>(module, "FeedForward")
      .def(py::init([](std::shared_ptr<Linear> up, std::shared_ptr<Linear> down,
                       const std::string& activation, std::shared_ptr<Linear> gate) {
             return std::make_shared<FeedForward>(
                 up, down, by_name("activation", activation, kActivations), gate);
           }),
           arg("up").none(false), arg("down").none(false), py::kw_only(), arg("activation"),
           arg("gate") = py::none())
      .def_static(
          "joined",
          [](std::shared_ptr<Linear> gate_up, std::shared_ptr<Linear> down,
             const std::string& activation) {
            return std::make_shared<FeedForward>(FeedForward::joined(
                gate_up, down, by_name("activation", activation, kActivations)));
          },
          arg("gate_up").none(false), arg("down").none(false), py::kw_only(), arg("activation"));
  py::class_<Experts, std::shared_ptr<Experts>>(module, "Experts")
      .def(py::init(&make_experts), arg("router").none(false), arg("experts"),
           arg("bias") = py::none(), py::kw_only(), arg("top_k"));
  module.def("gated_rows", &FeedForward::gated_rows, arg("inner_size"));

  py::class_<Dense>(module, "Dense")
      .def(py::init([](std::shared_ptr<Linear> linear, const std::string& activation, bool residual,
                       std::shared_ptr<LayerNorm> norm) {
             return Dense{linear, by_name("activation", activation, kActivations), residual, norm};
           }),
           arg("linear").none(false), py::kw_only(), arg("activation") = "identity",
           arg("residual") = false, arg("norm") = py::none());
}

}  // namespace

void bind_layers(py::module_& module) {
  bind_parts(module);
  bind_sublayers(module);
}

}  // namespace simdformer::bindings

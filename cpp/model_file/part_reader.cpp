// SPDX-License-Identifier: Apache-2.0
#include "model_file/part_reader.h"

#include <algorithm>

namespace simdformer::model_file {

Linear LinearNumbers::linear() const {
  const float* b = bias.size() ? bias.data() : nullptr;
  if (!is_int8) return Linear(ConstMatrix{weight.data(), rows, cols, cols}, b, storage);
  const std::span<const int32_t> outliers(int8.outliers.data(), int8.outliers.size());
  return Linear(S8Matrix{.rows = rows,
                         .cols = cols,
                         .values = int8.values.data(),
                         .scale = int8.scale.data(),
                         .outliers = outliers,
                         .outlier_weight = int8.outlier_weight.data(),
                         .rotated = int8.rotated},
                b);
}

PoolingHead PartReader::pooling_head(size_t hidden_size) {
  auto pooling = get<std::vector<Pooling>>();
  auto dense = get<std::vector<Dense>>();
  for (const Dense& layer : dense) required(layer.linear, "linear layer");
  check(pooling.size() <= std::size(Codes<Pooling>::kAll), "it has ", pooling.size(), " poolings");
  return PoolingHead(hidden_size, std::move(pooling), std::move(dense), get<bool>());
}

VocabularyHead PartReader::vocabulary_head() {
  auto transform = get<std::optional<Dense>>();
  if (transform) required(transform->linear, "linear layer");
  auto vocabulary = get<std::shared_ptr<const Linear>>();
  required(vocabulary, "linear layer");
  auto bias = get<Buffer<float>>();
  const bool sums = get<bool>();
  const size_t logarithms = get<size_t>();
  return VocabularyHead(std::move(transform), vocabulary, std::move(bias), sums,
                        static_cast<int>(std::min<size_t>(logarithms, 3)));
}

std::shared_ptr<const TransformerStack> PartReader::stack() {
  auto embeddings = get<std::shared_ptr<const Embeddings>>();
  auto layers = get<std::vector<std::shared_ptr<const TransformerLayer>>>();
  required(embeddings, "embeddings");
  for (const auto& layer : layers) required(layer, "layer");
  return std::make_shared<TransformerStack>(std::move(layers), get<std::shared_ptr<const Norm>>(),
                                            std::move(embeddings));
}

std::shared_ptr<const Norm> PartReader::make(std::type_identity<Norm>) {
  const auto mean = get<Buffer<float>>();
  const auto weight = get<Buffer<float>>();
  const auto bias = get<Buffer<float>>();
  const auto eps = get<float>();
  if (get<bool>()) return make_layer_norm(layer_norm(weight, bias, eps));
  const auto span = [](const Buffer<float>& x) { return std::span(x.data(), x.size()); };
  if (mean.size() == 0) return make_rms_norm(span(weight), eps);
  return make_column_norm(span(mean), span(weight), span(bias));
}

LinearNumbers PartReader::numbers() {
  LinearNumbers x;
  (*this)(x.cols, x.bias, x.is_int8);
  check(x.cols > 0, "a matrix has no columns");
  size_t size = 0;
  if (x.is_int8) {
    (*this)(x.int8.rotated, x.int8.values, x.int8.scale, x.int8.outliers, x.int8.outlier_weight);
    size = x.int8.values.size();
  } else if (get<bool>()) {
    const auto halves = get<Buffer<uint16_t>>();
    x.storage = Storage::kBfloat16;
    x.weight = Buffer<float>(size = halves.size());
    std::transform(halves.data(), halves.data() + size, x.weight.data(), [](uint16_t half) {
      return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
    });
  } else {
    read(x.weight);
    size = x.weight.size();
  }
  x.rows = size / x.cols;
  check(x.rows > 0 && x.rows * x.cols == size, "a matrix has ", size, " elements in ", x.cols,
        " columns");
  check(x.bias.size() == 0 || x.bias.size() == x.rows, "a matrix has ", x.rows, " rows and ",
        x.bias.size(), " biases");
  check(!x.is_int8 || (x.int8.scale.size() == x.rows * num_s8_groups(x.cols) &&
                       x.int8.outliers.size() <= x.cols &&
                       x.int8.outlier_weight.size() == x.rows * x.int8.outliers.size()),
        "an int8 matrix of ", x.rows, " rows has ", x.int8.scale.size(), " scales, ",
        x.int8.outliers.size(), " outliers and ", x.int8.outlier_weight.size(),
        " of their weights");
  return x;
}

namespace {

// Rows of `cols` elements in another order; -1 is a row of zeros.
template <typename T>
Buffer<T> in_order(const Buffer<T>& numbers, size_t cols, std::span<const int32_t> rows) {
  if (numbers.size() == 0) return {};
  Buffer<T> ordered(rows.size() * cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    T* to = ordered.data() + i * cols;
    if (rows[i] < 0) {
      std::fill_n(to, cols, T{});
    } else {
      std::copy_n(numbers.data() + static_cast<size_t>(rows[i]) * cols, cols, to);
    }
  }
  return ordered;
}

}  // namespace

std::shared_ptr<const FeedForward> PartReader::make(std::type_identity<FeedForward>) {
  using Part = std::shared_ptr<const Linear>;
  const auto activation = get<Activation>();
  if (!get<bool>()) {
    Part up, gate, down;
    (*this)(up, gate, down);
    required(up, "linear layer");
    required(down, "linear layer");
    return std::make_shared<FeedForward>(up, down, activation, gate);
  }
  LinearNumbers x = numbers();
  const auto down = get<Part>();
  required(down, "linear layer");
  check(x.rows == 2 * down->in_features(), "gate and up have ", x.rows, " rows, down takes ",
        down->in_features(), " features");
  const std::vector<int32_t> rows = FeedForward::gated_rows(down->in_features());
  x.rows = rows.size();
  x.bias = in_order(x.bias, 1, rows);
  x.weight = in_order(x.weight, x.cols, rows);
  x.int8.values = in_order(x.int8.values, x.cols, rows);
  x.int8.scale = in_order(x.int8.scale, num_s8_groups(x.cols), rows);
  x.int8.outlier_weight = in_order(x.int8.outlier_weight, x.int8.outliers.size(), rows);
  const auto joined = std::make_shared<Linear>(x.linear());
  return std::make_shared<FeedForward>(FeedForward::joined(joined, down, activation));
}

std::shared_ptr<const Experts> PartReader::make(std::type_identity<Experts>) {
  auto parts = get<Experts::Parts>();
  required(parts.router, "linear layer");
  for (const auto& expert : parts.experts) required(expert, "feed-forward");
  return std::make_shared<Experts>(std::move(parts));
}

void PartReader::read(PositionWise& part) {
  const auto read_as = [&]<typename T>(std::type_identity<T>) {
    auto own = get<std::shared_ptr<const T>>();
    required(own, "feed-forward");
    part = std::move(own);
  };
  get<bool>() ? read_as(std::type_identity<Experts>()) : read_as(std::type_identity<FeedForward>());
}

std::shared_ptr<const Embeddings> PartReader::make(std::type_identity<Embeddings>) {
  std::shared_ptr<const Linear> head, projection;
  size_t width = 0;
  Buffer<float> word, scale, position, token_type;
  Buffer<uint16_t> halves;
  Buffer<int8_t> values;
  (*this)(head, width, word, halves, values, scale, position, token_type);
  Table words(width, std::move(word), std::move(halves), std::move(values), std::move(scale));
  const auto table = [&](const Buffer<float>& numbers) {
    check(width > 0 && numbers.size() % width == 0, "a table of embeddings has ", numbers.size(),
          " elements in ", width, " columns");
    return ConstMatrix{numbers.data(), numbers.size() / width, width, width};
  };
  check(!head || (head->in_features() == width && words.rows() == 0),
        "the words' layer does not fit their table");
  const auto norm = get<std::shared_ptr<const LayerNorm>>();
  const bool counted = get<bool>();
  const auto padding_idx = get<size_t>();
  read(projection);
  check(!counted || padding_idx < position.size(), "padding_idx is ", padding_idx);
  return std::make_shared<Embeddings>(std::move(words), head, table(position), table(token_type),
                                      norm, counted ? std::optional(padding_idx) : std::nullopt,
                                      projection);
}

std::shared_ptr<const MultiheadAttention> PartReader::make(std::type_identity<MultiheadAttention>) {
  auto options = get<AttentionOptions>();
  auto parts = get<MultiheadAttention::Parts>();
  required(parts.output, "linear layer");
  for (const LinearGroup& group : parts.projections) {
    for (const auto& linear : group) required(linear, "linear layer");
  }
  check(parts.projections.size() == 1, "an attention has ", parts.projections.size(),
        " groups of projections, expected 1");
  for (const int64_t window : {options.window_left, options.window_right}) {
    check(window >= 0 && window <= AttentionArgs::kUnbounded, "an attention's window is ", window);
  }
  return std::make_shared<MultiheadAttention>(std::move(parts), options);
}

std::shared_ptr<const TransformerLayer> PartReader::make(std::type_identity<TransformerLayer>) {
  const auto options = get<SublayerOptions>();
  auto parts = get<TransformerLayer::Parts>();
  required(parts.self_attention, "self-attention");
  return std::make_shared<TransformerLayer>(std::move(parts), options);
}

}  // namespace simdformer::model_file

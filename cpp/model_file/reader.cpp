// SPDX-License-Identifier: Apache-2.0
#include "model_file/reader.h"

#include <algorithm>
#include <limits>
#include <typeindex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model_file/fields.h"
#include "model_file/format.h"

namespace simdformer::model_file {
namespace {

// The numbers of a Linear in float32 or int8, as in a file.
struct LinearNumbers {
  size_t rows = 0;
  size_t cols = 0;
  Buffer<float> bias;
  bool is_int8 = false;
  Storage storage = Storage::kFloat32;
  Buffer<float> weight;
  S8Numbers int8;

  Linear linear() const {
    const float* b = bias.size() ? bias.data() : nullptr;
    if (!is_int8) return Linear(ConstMatrix{weight.data(), rows, cols, cols}, b, storage);
    const std::span<const int32_t> outliers(int8.outliers.data(), int8.outliers.size());
    return Linear(S8Matrix{.rows = rows,
                           .cols = cols,
                           .values = int8.values.data(),
                           .scale = int8.scale.data(),
                           .outliers = outliers,
                           .outlier_weight = int8.outlier_weight.data()},
                  b);
  }
};

class Reader {
 public:
  using Read = FunctionRef<bool(void* data, size_t count)>;

  Reader(size_t size, Read read) : left_(size), read_(read) {}

  template <typename... T>
  void operator()(T&... values) {
    (read(values), ...);
  }

  template <typename T>
  T get() {
    T value{};
    read(value);
    return value;
  }

  void bytes(void* data, size_t size) {
    const size_t whole = size / kUnit * kUnit;
    if (whole > 0) unit_bytes(data, whole);
    if (whole == size) return;
    char rest[kUnit];
    unit_bytes(rest, kUnit);
    std::memcpy(static_cast<char*>(data) + whole, rest, size - whole);
  }

  void finish() {
    const Checksum sums = checksum_;
    const bool same = get<size_t>() == sums.first;
    check((get<size_t>() == sums.second) && same, "its checksum does not match: it is damaged");
    check(left_ == 0, "there are ", left_, " bytes behind its end");
  }

  PoolingHead pooling_head(size_t hidden_size) {
    auto pooling = get<std::vector<Pooling>>();
    auto dense = get<std::vector<Dense>>();
    for (const Dense& layer : dense) required(layer.linear, "linear layer");
    check(pooling.size() <= std::size(Codes<Pooling>::kAll), "it has ", pooling.size(),
          " poolings");
    return PoolingHead(hidden_size, std::move(pooling), std::move(dense), get<bool>());
  }

  VocabularyHead vocabulary_head() {
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

  std::shared_ptr<const TransformerStack> stack() {
    auto embeddings = get<std::shared_ptr<const Embeddings>>();
    auto layers = get<std::vector<std::shared_ptr<const TransformerLayer>>>();
    required(embeddings, "embeddings");
    for (const auto& layer : layers) required(layer, "layer");
    return std::make_shared<TransformerStack>(std::move(layers), get<std::shared_ptr<const Norm>>(),
                                              std::move(embeddings));
  }

 private:
  template <typename T>
  static void required(const std::shared_ptr<const T>& part, const char* name) {
    check(part != nullptr, "a ", name, " is missing");
  }

  void unit_bytes(void* data, size_t size) {
    check(size <= left_ && read_(data, size), "it ends too early: it is truncated or damaged");
    left_ -= size;
    checksum_.add(data, size);
  }

  template <typename T>
  void read_unit(T& value) {
    char unit[kUnit];
    unit_bytes(unit, kUnit);
    std::memcpy(&value, unit, sizeof(value));
  }
  void read(bool& value) {
    const size_t number = get<size_t>();
    check(number <= 1, "it has ", number, " in the place of 0 or 1");
    value = number == 1;
  }
  void read(size_t& value) {
    uint64_t number = 0;
    read_unit(number);
    check(number <= std::numeric_limits<size_t>::max(), "it has the size ", number);
    value = static_cast<size_t>(number);
  }
  void read(int64_t& value) { read_unit(value); }
  void read(float& value) { read_unit(value); }

  template <typename Enum>
    requires std::is_enum_v<Enum>
  void read(Enum& value) {
    const size_t code = get<size_t>();
    check(code < std::size(Codes<Enum>::kAll), "it has the unknown code ", code);
    value = Codes<Enum>::kAll[code];
  }

  // How many elements of at least so many bytes follow.
  size_t count(size_t element_size) {
    const size_t number = get<size_t>();
    check(number <= left_ / element_size, "it ends before the ", number,
          " elements of an array: it is truncated or damaged");
    return number;
  }
  template <typename T>
  void read(Buffer<T>& values) {
    values = Buffer<T>(count(sizeof(T)));
    bytes(values.data(), values.size() * sizeof(T));
  }
  void read(std::vector<int32_t>& values) {
    values.resize(count(sizeof(int32_t)));
    bytes(values.data(), values.size() * sizeof(int32_t));
  }
  template <typename T>
  void read(std::vector<T>& parts) {
    const size_t number = count(kUnit);
    for (size_t i = 0; i < number; ++i) parts.push_back(get_part<T>());
  }
  template <typename T>
  T get_part() {
    if constexpr (std::same_as<T, Linear>) {
      return numbers().linear();
    } else {
      return get<T>();
    }
  }
  template <typename T>
  void read(std::optional<T>& part) {
    if (get<bool>()) part = get<T>();
  }

  template <typename T>
  void read(std::shared_ptr<const T>& part) {
    const size_t number = get<size_t>();
    if (number == kNoPart) return;
    if (number == kNewPart) {
      part = make(std::type_identity<T>());
      known_.emplace_back(std::type_index(typeid(T)), part);
      return;
    }
    const size_t place = number - kFirstPart;
    check(place < known_.size() && known_[place].first == std::type_index(typeid(T)),
          "it has no part ", place, " of the expected kind");
    part = std::static_pointer_cast<const T>(known_[place].second);
  }

  template <typename T>
    requires requires(Reader& reader, T& x) { fields(reader, x); }
  void read(T& part) {
    fields(*this, part);
  }

  std::shared_ptr<const Norm> make(std::type_identity<Norm>);
  std::shared_ptr<const LayerNorm> make(std::type_identity<LayerNorm>) {
    const auto weight = get<Buffer<float>>();
    const auto bias = get<Buffer<float>>();
    return layer_norm(weight, bias, get<float>());
  }
  static std::shared_ptr<const LayerNorm> layer_norm(const Buffer<float>& weight,
                                                     const Buffer<float>& bias, float eps) {
    check(weight.size() > 0 && (bias.size() == 0 || bias.size() == weight.size()),
          "a LayerNorm has ", weight.size(), " weights and ", bias.size(), " biases");
    return std::make_shared<LayerNorm>(weight.size(), weight.data(),
                                       bias.size() ? bias.data() : nullptr, eps);
  }

  LinearNumbers numbers();
  std::shared_ptr<const Linear> make(std::type_identity<Linear>) {
    return std::make_shared<Linear>(numbers().linear());
  }
  std::shared_ptr<const FeedForward> make(std::type_identity<FeedForward>);
  std::shared_ptr<const Embeddings> make(std::type_identity<Embeddings>);

  std::shared_ptr<const RelativeEmbeddings> make(std::type_identity<RelativeEmbeddings>) {
    auto embeddings = std::make_shared<RelativeEmbeddings>();
    fields(*this, *embeddings);
    check_rows(*embeddings);
    return embeddings;
  }
  std::shared_ptr<const Positions> make(std::type_identity<Positions>) {
    auto positions = std::make_shared<Positions>();
    fields(*this, *positions);
    set_lengths(*positions);
    return positions;
  }
  std::shared_ptr<const MultiheadAttention> make(std::type_identity<MultiheadAttention>);
  std::shared_ptr<const TransformerLayer> make(std::type_identity<TransformerLayer>);

  size_t left_;
  Read read_;
  Checksum checksum_;
  std::vector<std::pair<std::type_index, std::shared_ptr<const void>>> known_;
};

std::shared_ptr<const Norm> Reader::make(std::type_identity<Norm>) {
  const auto mean = get<Buffer<float>>();
  const auto weight = get<Buffer<float>>();
  const auto bias = get<Buffer<float>>();
  const auto eps = get<float>();
  if (get<bool>()) return make_layer_norm(layer_norm(weight, bias, eps));
  const auto span = [](const Buffer<float>& x) { return std::span(x.data(), x.size()); };
  if (mean.size() == 0) return make_rms_norm(span(weight), eps);
  return make_column_norm(span(mean), span(weight), span(bias));
}

LinearNumbers Reader::numbers() {
  LinearNumbers x;
  (*this)(x.cols, x.bias, x.is_int8);
  check(x.cols > 0, "a matrix has no columns");
  size_t size = 0;
  if (x.is_int8) {
    (*this)(x.int8.values, x.int8.scale, x.int8.outliers, x.int8.outlier_weight);
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

std::shared_ptr<const FeedForward> Reader::make(std::type_identity<FeedForward>) {
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

std::shared_ptr<const Embeddings> Reader::make(std::type_identity<Embeddings>) {
  std::shared_ptr<const Linear> head, projection;
  size_t width = 0;
  Buffer<float> word, position, token_type;
  (*this)(head, width, word, position, token_type);
  const auto table = [&](const Buffer<float>& numbers) {
    check(width > 0 && numbers.size() % width == 0, "a table of embeddings has ", numbers.size(),
          " elements in ", width, " columns");
    return ConstMatrix{numbers.data(), numbers.size() / width, width, width};
  };
  check(!head || (head->in_features() == width && word.size() == 0),
        "the words' layer does not fit their table");
  const auto norm = get<std::shared_ptr<const LayerNorm>>();
  const bool counted = get<bool>();
  const auto padding_idx = get<size_t>();
  read(projection);
  check(!counted || padding_idx < position.size(), "padding_idx is ", padding_idx);
  return std::make_shared<Embeddings>(table(word), head, table(position), table(token_type), norm,
                                      counted ? std::optional(padding_idx) : std::nullopt,
                                      projection);
}

std::shared_ptr<const MultiheadAttention> Reader::make(std::type_identity<MultiheadAttention>) {
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

std::shared_ptr<const TransformerLayer> Reader::make(std::type_identity<TransformerLayer>) {
  const auto options = get<SublayerOptions>();
  auto parts = get<TransformerLayer::Parts>();
  required(parts.self_attention, "self-attention");
  required(parts.feed_forward, "feed-forward");
  return std::make_shared<TransformerLayer>(std::move(parts), options);
}

}  // namespace

Model read_model(size_t size, FunctionRef<bool(void* data, size_t count)> read) {
  check(size % kUnit == 0 && size >= sizeof(kMagic), "it has ", size,
        " bytes: it is no exported model, or truncated");
  Reader reader(size, read);
  char magic[sizeof(kMagic)];
  reader.bytes(magic, sizeof(magic));
  check(std::equal(std::begin(magic), std::end(magic), kMagic), "it is no exported model");
  const auto version = reader.get<size_t>();
  check(version == kVersion, "its format has version ", version, ", this library reads ", kVersion);
  Model model{.stack = reader.stack(), .pooling = {}, .vocabulary = {}, .output = {}};
  size_t columns = 0;
  if (reader.get<bool>()) {
    model.pooling.emplace(reader.pooling_head(model.stack->hidden_size()));
    columns = model.pooling->embedding_dimension();
  } else {
    model.vocabulary.emplace(reader.vocabulary_head());
    columns = model.vocabulary->out_features();
    check(model.vocabulary->in_features() == model.stack->hidden_size(),
          "the vocabulary's head takes ", model.vocabulary->in_features(),
          " features, the layers give ", model.stack->hidden_size());
  }
  model.output = reader.get<Output>();
  check(model.output.columns > 0 && model.output.columns <= columns, "it keeps ",
        model.output.columns, " of ", columns, " columns");
  reader.finish();
  return model;
}

}  // namespace simdformer::model_file

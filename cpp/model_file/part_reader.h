// SPDX-License-Identifier: Apache-2.0
// Reads the parts of a model one after another.
#pragma once

#include <limits>
#include <typeindex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/function_ref.h"
#include "model_file/fields.h"
#include "model_file/format.h"

namespace simdformer::model_file {

// The numbers of a Linear in float32 or int8, as in a file.
struct LinearNumbers {
  size_t rows = 0;
  size_t cols = 0;
  Buffer<float> bias;
  bool is_int8 = false;
  Storage storage = Storage::kFloat32;
  Buffer<float> weight;
  S8Numbers int8;

  Linear linear() const;
};

class PartReader {
 public:
  using Read = FunctionRef<bool(void* data, size_t count)>;

  PartReader(size_t size, Read read) : left_(size), read_(read) {}

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

  PoolingHead pooling_head(size_t hidden_size);

  VocabularyHead vocabulary_head();

  std::shared_ptr<const TransformerStack> stack();

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
    requires requires(PartReader& reader, T& x) { fields(reader, x); }
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
  std::shared_ptr<const Experts> make(std::type_identity<Experts>);
  void read(PositionWise& part);
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

}  // namespace simdformer::model_file

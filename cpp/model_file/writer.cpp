// SPDX-License-Identifier: Apache-2.0
#include "model_file/writer.h"

#include <algorithm>
#include <map>
#include <typeindex>
#include <utility>
#include <vector>

#include "model_file/fields.h"
#include "model_file/format.h"

namespace simdformer::model_file {
namespace {

class Writer {
 public:
  using Put = FunctionRef<void(const void* data, size_t size)>;

  explicit Writer(Put put) : put_(put) {}

  template <typename... T>
  void operator()(const T&... values) {
    (write(values), ...);
  }

  void bytes(const void* data, size_t size) {
    const size_t whole = size / kUnit * kUnit;
    if (whole > 0) unit_bytes(data, whole);
    if (whole == size) return;
    char rest[kUnit] = {};
    std::memcpy(rest, static_cast<const char*>(data) + whole, size - whole);
    unit_bytes(rest, kUnit);
  }

  void finish() {
    const Checksum sums = checksum_;
    write(static_cast<size_t>(sums.first));
    write(static_cast<size_t>(sums.second));
  }

 private:
  void unit_bytes(const void* data, size_t size) {
    checksum_.add(data, size);
    put_(data, size);
  }

  template <typename T>
  void write_unit(T value) {
    char unit[kUnit] = {};
    std::memcpy(unit, &value, sizeof(value));
    unit_bytes(unit, kUnit);
  }
  void write(bool value) { write_unit(value); }
  void write(size_t value) { write_unit(static_cast<uint64_t>(value)); }
  void write(int64_t value) { write_unit(value); }
  void write(float value) { write_unit(value); }

  template <typename Enum>
    requires std::is_enum_v<Enum>
  void write(Enum value) {
    const auto& codes = Codes<Enum>::kAll;
    write(static_cast<size_t>(std::find(std::begin(codes), std::end(codes), value) -
                              std::begin(codes)));
  }

  template <typename T>
  void array(const T* data, size_t size) {
    write(size);
    bytes(data, size * sizeof(T));
  }
  template <typename T>
  void array(std::span<const T> values) {
    array(values.data(), values.size());
  }
  void table(ConstMatrix rows) { array(rows.data, rows.rows * rows.cols); }
  void write(const Buffer<float>& values) { array(values.data(), values.size()); }
  void write(const std::vector<int32_t>& values) { array(values.data(), values.size()); }

  template <typename T>
  void write(const std::vector<T>& parts) {
    write(parts.size());
    for (const T& part : parts) write(part);
  }
  template <typename T>
  void write(const std::optional<T>& part) {
    write(part.has_value());
    if (part) write(*part);
  }

  template <typename T>
  void write(const std::shared_ptr<const T>& part) {
    if (!part) return write(kNoPart);
    const auto key = std::pair(std::type_index(typeid(T)), static_cast<const void*>(part.get()));
    if (const auto found = known_.find(key); found != known_.end()) {
      return write(kFirstPart + found->second);
    }
    write(kNewPart);
    write(*part);
    known_.emplace(key, known_.size());
  }

  template <typename T>
    requires requires(Writer& writer, const T& x) { fields(writer, x); }
  void write(const T& part) {
    fields(*this, part);
  }

  void write(const Norm& norm) {
    const NormNumbers numbers = norm.numbers();
    array(numbers.mean);
    array(numbers.weight);
    array(numbers.bias);
    write(numbers.eps);
    write(norm.fused() != nullptr);
  }
  void write(const LayerNorm& norm) {
    array(norm.weight(), norm.size());
    array(norm.bias(), norm.bias() ? norm.size() : 0);
    write(norm.eps());
  }

  void write(const Linear& linear) {
    std::vector<int32_t> rows(linear.out_features());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
    linear_rows(linear, rows);
  }
  void linear_rows(const Linear& linear, std::span<const int32_t> rows);

  void write(const FeedForward& layer);
  void write(const Table& table);
  void write(const Experts& experts) { write(experts.parts()); }
  void write(const PositionWise& part) {
    write(std::holds_alternative<std::shared_ptr<const Experts>>(part));
    std::visit([&](const auto& own) { write(own); }, part);
  }
  void write(const Embeddings& embeddings);
  void write(const MultiheadAttention& attention) {
    write(attention.options());
    write(attention.parts());
  }
  void write(const TransformerLayer& layer) {
    write(layer.options());
    write(layer.parts());
  }
  void write(const TransformerStack& stack) {
    write(stack.shared_embeddings());
    write(stack.layers());
    write(stack.norm());
  }
  void write(const PoolingHead& head) {
    write(head.pooling());
    write(head.dense());
    write(head.normalize());
  }
  void write(const VocabularyHead& head) {
    write(head.transform());
    write(head.vocabulary());
    write(head.bias());
    write(head.sums());
    write(static_cast<size_t>(head.logarithms()));
  }

  Put put_;
  Checksum checksum_;
  std::map<std::pair<std::type_index, const void*>, size_t> known_;
};

// The rows of a matrix of `cols` columns, in order.
template <typename T>
std::vector<T> in_order(const T* numbers, size_t cols, std::span<const int32_t> rows) {
  std::vector<T> ordered;
  ordered.reserve(rows.size() * cols);
  for (const int32_t row : rows) {
    const T* begin = numbers + static_cast<size_t>(row) * cols;
    ordered.insert(ordered.end(), begin, begin + cols);
  }
  return ordered;
}

// The upper halves of float32, which are bfloat16.
std::vector<uint16_t> upper_halves(std::span<const float> numbers) {
  std::vector<uint16_t> halves(numbers.size());
  std::transform(numbers.begin(), numbers.end(), halves.begin(),
                 [](float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); });
  return halves;
}

void Writer::linear_rows(const Linear& linear, std::span<const int32_t> rows) {
  const size_t cols = linear.in_features();
  const auto put = [&](const auto& numbers) { array(numbers.data(), numbers.size()); };
  write(cols);
  put(linear.bias().empty() ? std::vector<float>() : in_order(linear.bias().data(), 1, rows));
  write(linear.is_int8());
  if (linear.is_int8()) {
    const S8Numbers numbers = linear.unpack_int8();
    const size_t outliers = numbers.outliers.size();
    write(numbers.rotated);
    put(in_order(numbers.values.data(), cols, rows));
    put(in_order(numbers.scale.data(), num_s8_groups(cols), rows));
    put(numbers.outliers);
    put(in_order(numbers.outlier_weight.data(), outliers, rows));
    return;
  }
  Buffer<float> weight(linear.out_features() * cols);
  linear.unpack({weight.data(), linear.out_features(), cols, cols});
  const std::vector<float> ordered = in_order(weight.data(), cols, rows);
  write(linear.is_bfloat16());
  linear.is_bfloat16() ? put(upper_halves(ordered)) : put(ordered);
}

// The order of gate and up in a joined matrix depends on the level. In the file gate's rows come
// first.
void Writer::write(const FeedForward& layer) {
  write(layer.activation());
  write(layer.gate_up() != nullptr);
  if (!layer.gate_up()) {
    write(layer.up());
    write(layer.gate());
    return write(layer.down());
  }
  const std::vector<int32_t> order = FeedForward::gated_rows(layer.inner_size());
  std::vector<int32_t> rows(2 * layer.inner_size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] >= 0) rows[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
  }
  linear_rows(*layer.gate_up(), rows);
  write(layer.down());
}

// The arrays of the types that it is not in are empty.
void Writer::write(const Table& table) {
  array(table.float32());
  array(table.bfloat16());
  array(table.values());
  array(table.scale());
}

void Writer::write(const Embeddings& embeddings) {
  write(embeddings.head());
  write(embeddings.width());
  write(embeddings.word());
  table(embeddings.position());
  table(embeddings.token_type());
  write(embeddings.norm());
  write(embeddings.padding_idx().has_value());
  write(embeddings.padding_idx().value_or(0));
  write(embeddings.projection());
}

}  // namespace

void write_model(const ModelView& model, FunctionRef<void(const void* data, size_t size)> write) {
  Writer writer(write);
  writer.bytes(kMagic, sizeof(kMagic));
  writer(kVersion, model.stack, model.pooling != nullptr);
  model.pooling ? writer(*model.pooling) : writer(*model.vocabulary);
  writer(model.output);
  writer.finish();
}

}  // namespace simdformer::model_file

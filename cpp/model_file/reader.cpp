// SPDX-License-Identifier: Apache-2.0
#include "model_file/reader.h"

#include <algorithm>

#include "model_file/part_reader.h"

namespace simdformer::model_file {

Model read_model(size_t size, FunctionRef<bool(void* data, size_t count)> read) {
  check(size % kUnit == 0 && size >= sizeof(kMagic), "it has ", size,
        " bytes: it is no exported model, or truncated");
  PartReader reader(size, read);
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

// SPDX-License-Identifier: Apache-2.0
#include "c_api/simdformer.h"

#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <new>
#include <span>
#include <string>

#include "base/check.h"
#include "base/thread_count.h"
#include "model_file/reader.h"

struct simdformer_model {
  simdformer::model_file::Model model;
  const simdformer::Kernels& kernels = simdformer::active_kernels();
};

namespace simdformer {
namespace {

thread_local std::string last_error;

// The result of call, or failed if it throws.
template <typename Result, typename Call>
Result guarded(Result failed, Call&& call) noexcept {
  try {
    try {
      return call();
    } catch (const std::bad_alloc&) {
      last_error = "out of memory";
    } catch (const std::exception& error) {
      last_error = error.what();
    }
  } catch (...) {
    last_error.clear();  // no memory for the message
  }
  return failed;
}

model_file::Model read_file(const std::string& path) {
  const std::filesystem::path native(std::u8string(path.begin(), path.end()));
  std::ifstream file(native, std::ios::binary | std::ios::ate);
  const auto end = static_cast<std::streamoff>(file.tellg());
  check(file.good() && end >= 0 && std::filesystem::is_regular_file(native), path,
        ": it cannot be read as a file");
  file.seekg(0);
  const auto read = [&](void* data, size_t count) {
    return file.read(static_cast<char*>(data), static_cast<std::streamsize>(count)).good();
  };
  try {
    return model_file::read_model(static_cast<size_t>(end), read);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(concat(path, ": ", error.what()));
  }
}

model_file::Model read_memory(const void* data, size_t size) {
  const auto* next = static_cast<const char*>(data);
  const auto read = [&](void* to, size_t count) {
    std::memcpy(to, next, count);
    next += count;
    return true;
  };
  return model_file::read_model(size, read);
}

Batch checked_batch(const int32_t* input_ids, const int32_t* token_type_ids, const int32_t* offsets,
                    size_t num_sequences) {
  check(offsets != nullptr, "offsets is NULL");
  check(offsets[0] == 0, "offsets[0] is ", offsets[0], ", expected 0");
  for (size_t i = 0; i < num_sequences; ++i) {
    check(offsets[i + 1] >= offsets[i], "offsets[", i + 1, "] is ", offsets[i + 1],
          ", less than the one before, ", offsets[i]);
  }
  const auto tokens = static_cast<size_t>(offsets[num_sequences]);
  check(tokens == 0 || input_ids != nullptr, "input_ids is NULL");
  return {.input_ids = {input_ids, tokens},
          .token_type_ids = {token_type_ids, token_type_ids ? tokens : 0},
          .cu_seqlens = {offsets, num_sequences + 1}};
}

simdformer_options checked_options(const model_file::Model& model,
                                   const simdformer_options* given) {
  simdformer_options options{.size = sizeof(options), .pooling_start = 0, .num_threads = 0};
  if (given == nullptr) return options;
  check(given->size == sizeof(options), "options.size is ", given->size, ", expected ",
        sizeof(options));
  options = *given;
  check(options.num_threads >= 0, "options.num_threads is ", options.num_threads);
  check(options.pooling_start == 0 || model.pooling,
        "options.pooling_start must be 0 for a model whose rows are of the vocabulary");
  return options;
}

void run(const model_file::Model& model, const Batch& batch, const simdformer_options& options,
         Matrix rows) {
  TransformerStack::Call call;
  call.ids = &batch;
  call.self.cu_q = call.self.cu_k = batch.cu_seqlens;
  const auto forward = [&](Sink&& sink) {
    model.stack->forward(call, threads_of_call(options.num_threads), StopCheck(), sink);
  };
  if (model.pooling) {
    forward(PooledSink(batch.cu_seqlens, *model.pooling, options.pooling_start, rows));
  } else {
    forward(VocabularySink(batch.cu_seqlens, *model.vocabulary, rows));
  }
}

void encode(const simdformer_model& handle, const Batch& batch, const simdformer_options& options,
            float* output) {
  const model_file::Model& model = handle.model;
  const size_t columns = model.output.columns;
  const size_t width =
      model.pooling ? model.pooling->embedding_dimension() : model.vocabulary->out_features();
  Buffer<float> whole;
  if (width != columns) whole.reserve(batch.size() * width);
  const Matrix rows{width == columns ? output : whole.data(), batch.size(), width, width};
  run(model, batch, options, rows);
  for (size_t i = 0; i < rows.rows; ++i) {
    float* row = output + i * columns;
    if (width != columns) std::memcpy(row, rows.row(i), columns * sizeof(float));
    if (model.output.activation != Activation::kIdentity) {
      handle.kernels.activation(model.output.activation, columns, row, row);
    }
  }
}

}  // namespace
}  // namespace simdformer

extern "C" {

int32_t simdformer_abi_version(void) { return SIMDFORMER_ABI_VERSION; }

const char* simdformer_version(void) { return SIMDFORMER_VERSION; }

const char* simdformer_last_error(void) { return simdformer::last_error.c_str(); }

simdformer_model* simdformer_open(const char* path) {
  using namespace simdformer;
  return guarded<simdformer_model*>(nullptr, [&] {
    check(path != nullptr, "path is NULL");
    return new simdformer_model{read_file(path)};
  });
}

simdformer_model* simdformer_open_memory(const void* data, size_t size) {
  using namespace simdformer;
  return guarded<simdformer_model*>(nullptr, [&] {
    check(data != nullptr, "data is NULL");
    return new simdformer_model{read_memory(data, size)};
  });
}

void simdformer_close(simdformer_model* model) { delete model; }

size_t simdformer_dimension(const simdformer_model* model) { return model->model.output.columns; }

size_t simdformer_vocab_size(const simdformer_model* model) {
  return model->model.stack->embeddings()->vocab_size();
}

size_t simdformer_num_token_types(const simdformer_model* model) {
  return model->model.stack->embeddings()->num_token_types();
}

size_t simdformer_max_length(const simdformer_model* model) {
  return model->model.stack->max_length();
}

int32_t simdformer_encode(const simdformer_model* model, const int32_t* input_ids,
                          const int32_t* token_type_ids, const int32_t* offsets,
                          size_t num_sequences, const simdformer_options* options, float* output) {
  using namespace simdformer;
  return guarded<int32_t>(-1, [&] {
    check(model != nullptr, "model is NULL");
    check(output != nullptr || num_sequences == 0, "output is NULL");
    const Batch batch = checked_batch(input_ids, token_type_ids, offsets, num_sequences);
    encode(*model, batch, checked_options(model->model, options), output);
    return 0;
  });
}

}  // extern "C"

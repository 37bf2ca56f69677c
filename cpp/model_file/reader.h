// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/function_ref.h"
#include "model_file/model.h"

namespace simdformer::model_file {

// size: bytes of the file. read(data, count) reads the next bytes; false if there are fewer. Throws
// std::invalid_argument if the file is invalid.
Model read_model(size_t size, FunctionRef<bool(void* data, size_t count)> read);

}  // namespace simdformer::model_file

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/function_ref.h"
#include "model_file/model.h"

namespace simdformer::model_file {

// size: of the whole file. read(data, count): its next bytes, and whether there are as many. Throws
// std::invalid_argument that says what is wrong with the file.
Model read_model(size_t size, FunctionRef<bool(void* data, size_t count)> read);

}  // namespace simdformer::model_file

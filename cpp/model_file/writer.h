// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/function_ref.h"
#include "model_file/model.h"

namespace simdformer::model_file {

// Calls write with the bytes of the file, one piece after another.
void write_model(const ModelView& model, FunctionRef<void(const void* data, size_t size)> write);

}  // namespace simdformer::model_file

// SPDX-License-Identifier: Apache-2.0
// Multi-head attention outside a stack.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/names.h"
#include "bindings/nn_arguments.h"
#include "layers/stack/single_attention.h"

namespace simdformer::bindings {
namespace {

using py::arg;

std::vector<LinearGroup> projection_groups(
    const std::vector<std::vector<Shared<Linear>>>& projections) {
  std::vector<LinearGroup> groups;
  for (const auto& group : projections) groups.push_back(constant("projections", group));
  return groups;
}

Shared<SingleAttention> make_attention(const std::vector<std::vector<Shared<Linear>>>& projections,
                                       Shared<Linear> output, size_t num_heads, size_t num_kv_heads,
                                       const std::string& score, float softmax_scale, float softcap,
                                       float masked_value, bool normalize, bool key_norm_bias,
                                       const py::object& additive_weight, const py::object& bias_k,
                                       const py::object& bias_v, bool add_zero_attn,
                                       const std::pair<int64_t, int64_t>& window,
                                       const py::object& head_scales, Shared<Norm> query_norm,
                                       Shared<Norm> key_norm, Shared<Positions> position) {
  MultiheadAttention::Parts parts{.projections = projection_groups(projections),
                                  .output = output,
                                  .additive_weight = {},
                                  .head_scales = {},
                                  .query_norm = query_norm,
                                  .key_norm = key_norm,
                                  .extra = {},
                                  .position = position};
  if (!head_scales.is_none()) {
    parts.head_scales = copied(float_array("head_scales", head_scales, 1));
  }
  const auto limit = [](int64_t size) { return size < 0 ? AttentionArgs::kUnbounded : size; };
  if (!additive_weight.is_none()) {
    parts.additive_weight = copied(float_array("additive_weight", additive_weight, 2));
  }
  if (!bias_k.is_none()) {
    parts.extra.key = copied(float_array("bias_k", bias_k, 1));
    parts.extra.value = copied(float_array("bias_v", bias_v, 1));
  }
  parts.extra.zero = add_zero_attn;
  return std::make_shared<SingleAttention>(std::make_shared<MultiheadAttention>(
      std::move(parts), AttentionOptions{.num_heads = num_heads,
                                         .num_kv_heads = num_kv_heads,
                                         .score = by_name("score", score, kScores),
                                         .softmax_scale = softmax_scale,
                                         .softcap = softcap,
                                         .masked_value = masked_value,
                                         .window_left = limit(window.first),
                                         .window_right = limit(window.second),
                                         .normalize = normalize,
                                         .key_norm_bias = key_norm_bias}));
}

void attention_forward(const SingleAttention& self, const py::object& query, const py::object& key,
                       const py::object& value, const py::object& cu_seqlens_q,
                       const py::object& cu_seqlens_k, const py::object& out,
                       const py::object& weights, const Masks& masks,
                       const Shared<Positions>& positions, const py::object& head_mask,
                       bool head_outputs, int num_threads) {
  num_threads = threads_of_call(num_threads);
  const MultiheadAttention& attention = self.attention();
  const std::vector<int32_t> cu_q = offsets("cu_seqlens_q", cu_seqlens_q);
  const std::vector<int32_t> cu_k = offsets("cu_seqlens_k", cu_seqlens_k);
  check(cu_q.size() == cu_k.size(), "cu_seqlens_q is of ", cu_q.size() - 1,
        " sequences, cu_seqlens_k of ", cu_k.size() - 1);
  std::vector<int32_t> cu_all_keys;  // including the extra keys
  for (size_t s = 0; s < cu_k.size(); ++s) {
    cu_all_keys.push_back(cu_k[s] + static_cast<int32_t>(s * attention.num_extra_keys()));
  }
  const size_t max_keys = longest_sequence(cu_all_keys);
  SingleAttention::Call call{
      .query = sequence_rows<const float>("query", query, cu_q, attention.query_dim()),
      .key = sequence_rows<const float>("key", key, cu_k, attention.key_dim()),
      .value = sequence_rows<const float>("value", value, cu_k, attention.value_input_dim()),
      .out = sequence_rows<float>("out", out, cu_q,
                                  head_outputs ? attention.context_dim() : attention.embed_dim()),
      .padded_length = padded_length(out),
      .head_outputs = head_outputs,
      .pattern = masks.pattern(cu_q, cu_all_keys, max_keys, attention.num_heads()),
      .position =
          checked_position(positions, attention, std::max(longest_sequence(cu_q), max_keys)),
      .head_mask = optional_strided<float>("head_mask", head_mask,
                                           {cu_q.size() - 1, attention.num_heads(), 1, 1}),
      .weights = {}};
  call.weights = weights_output("weights", weights, cu_q.size() - 1, attention.num_heads(),
                                longest_sequence(cu_q), max_keys);
  without_gil([&](const StopCheck& stop_check) { self.forward(call, num_threads, stop_check); });
}

}  // namespace

void bind_nn_attention(py::module_& module) {
  py::class_<SingleAttention, Shared<SingleAttention>>(module, "MultiheadAttention")
      .def(py::init(&make_attention), arg("projections"), arg("output").none(false), py::kw_only(),
           arg("num_heads"), arg("num_kv_heads"), arg("score") = "dot", arg("softmax_scale"),
           arg("softcap") = 0.0f, arg("masked_value") = 0.0f, arg("normalize") = false,
           arg("key_norm_bias") = false, arg("additive_weight") = py::none(),
           arg("bias_k") = py::none(), arg("bias_v") = py::none(), arg("add_zero_attn") = false,
           arg("window") = std::pair<int64_t, int64_t>(-1, -1), arg("head_scales") = py::none(),
           arg("query_norm") = py::none(), arg("key_norm") = py::none(),
           arg("position") = py::none())
      .def("forward", &attention_forward, arg("query"), arg("key"), arg("value"),
           arg("cu_seqlens_q"), arg("cu_seqlens_k"), arg("out"), py::kw_only(),
           arg("weights") = py::none(), arg("masks") = Masks{}, arg("positions") = py::none(),
           arg("head_mask") = py::none(), arg("head_outputs") = false, arg("num_threads") = 0);
}

}  // namespace simdformer::bindings

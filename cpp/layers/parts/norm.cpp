// SPDX-License-Identifier: Apache-2.0
#include "layers/parts/norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"

namespace simdformer {

LayerNorm::LayerNorm(size_t size, const float* weight, const float* bias, float eps)
    : kernels_(active_kernels()), weight_(size), bias_(bias ? size : 0), eps_(eps) {
  check(eps >= 0.0f, "LayerNorm: eps must be >= 0, got ", eps);
  std::copy_n(weight, size, weight_.data());
  if (bias) std::copy_n(bias, size, bias_.data());
}

void LayerNorm::forward(Team& team, ConstMatrix x, Matrix y) const {
  team.for_each(x.rows, [&](size_t row) {
    kernels_.layer_norm({.rows = 1,
                         .cols = size(),
                         .x = x.row(row),
                         .ldx = x.stride,
                         .weight = weight(),
                         .bias = bias(),
                         .eps = eps_,
                         .y = y.row(row),
                         .ldy = y.stride});
  });
}
namespace {

class FusedLayerNorm final : public Norm {
 public:
  explicit FusedLayerNorm(std::shared_ptr<const LayerNorm> norm) : norm_(std::move(norm)) {}
  size_t size() const override { return norm_->size(); }
  NormNumbers numbers() const override {
    return {.mean = {},
            .weight = {norm_->weight(), size()},
            .bias = {norm_->bias(), norm_->bias() ? size() : 0},
            .eps = norm_->eps()};
  }
  const LayerNorm* fused() const override { return norm_.get(); }
  void forward(Team& team, ConstMatrix x, Matrix y) const override { norm_->forward(team, x, y); }

 private:
  std::shared_ptr<const LayerNorm> norm_;
};

class RmsNorm final : public Norm {
 public:
  RmsNorm(std::span<const float> weight, float eps)
      : kernels_(active_kernels()), weight_(weight.begin(), weight.end()), eps_(eps) {}
  size_t size() const override { return weight_.size(); }
  NormNumbers numbers() const override {
    return {.mean = {}, .weight = weight_, .bias = {}, .eps = eps_};
  }
  void forward(Team& team, ConstMatrix x, Matrix y) const override {
    team.for_each(x.rows, [&](size_t row) {
      kernels_.rms_norm({.rows = 1,
                         .cols = size(),
                         .x = x.row(row),
                         .ldx = x.stride,
                         .weight = weight_.data(),
                         .eps = eps_,
                         .y = y.row(row),
                         .ldy = y.stride});
    });
  }

 private:
  const Kernels& kernels_;
  std::vector<float> weight_;
  float eps_;
};

class BatchNorm final : public Norm {
 public:
  BatchNorm(std::span<const float> mean, std::span<const float> scale, std::span<const float> shift)
      : kernels_(active_kernels()),
        mean_(mean.begin(), mean.end()),
        scale_(scale.begin(), scale.end()),
        shift_(shift.begin(), shift.end()) {}
  size_t size() const override { return mean_.size(); }
  NormNumbers numbers() const override {
    return {.mean = mean_, .weight = scale_, .bias = shift_, .eps = 0.0f};
  }
  void forward(Team& team, ConstMatrix x, Matrix y) const override {
    team.for_each(x.rows, [&](size_t row) {
      kernels_.norm_columns({.rows = 1,
                             .cols = size(),
                             .x = x.row(row),
                             .ldx = x.stride,
                             .mean = mean_.data(),
                             .scale = scale_.data(),
                             .shift = shift_.data(),
                             .y = y.row(row),
                             .ldy = y.stride});
    });
  }

 private:
  const Kernels& kernels_;
  std::vector<float> mean_;
  std::vector<float> scale_;
  std::vector<float> shift_;
};

}  // namespace

std::shared_ptr<Norm> make_layer_norm(std::shared_ptr<const LayerNorm> norm) {
  return std::make_shared<FusedLayerNorm>(std::move(norm));
}

std::shared_ptr<Norm> make_rms_norm(std::span<const float> weight, float eps) {
  check(eps >= 0.0f, "RMSNorm: eps must be >= 0, got ", eps);
  return std::make_shared<RmsNorm>(weight, eps);
}

std::shared_ptr<Norm> make_batch_norm(std::span<const float> weight, std::span<const float> bias,
                                      std::span<const float> running_mean,
                                      std::span<const float> running_var, float eps) {
  const size_t size = weight.size();
  check(bias.size() == size && running_mean.size() == size && running_var.size() == size,
        "BatchNorm1d: weight has ", size, " elements, bias ", bias.size(), ", running_mean ",
        running_mean.size(), ", running_var ", running_var.size());
  std::vector<float> scale(size);
  for (size_t i = 0; i < size; ++i) {
    scale[i] = static_cast<float>(weight[i] / std::sqrt(static_cast<double>(running_var[i]) + eps));
  }
  return make_column_norm(running_mean, scale, bias);
}

std::shared_ptr<Norm> make_column_norm(std::span<const float> mean, std::span<const float> scale,
                                       std::span<const float> shift) {
  check(scale.size() == mean.size() && shift.size() == mean.size(), "a norm of columns has ",
        mean.size(), " means, ", scale.size(), " scales and ", shift.size(), " shifts");
  return std::make_shared<BatchNorm>(mean, scale, shift);
}

}  // namespace simdformer

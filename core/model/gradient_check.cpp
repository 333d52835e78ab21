#include "model/gradient_check.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <tuple>

#include "base/check.h"
#include "base/philox.h"

namespace dsengine {

using at::Tensor;

namespace {

// Rounding of 1e-15 over the step is 1e-9. Truncation goes with its square, by a third derivative along a direction as
// long as the square root of a tensor's size: 4e-6 was seen at a step of 1e-5.
constexpr double kStep = 2e-6;

Batch pack_all(const std::vector<std::vector<int32_t>>& all) { return pack(Device::host(), {all.begin(), all.end()}); }

// One number that depends on every parameter.
class Objective {
 public:
  explicit Objective(int64_t vocabulary) : batch_(pack_all(made_up_sequences({5, 1, 9, 2}, vocabulary))) {
    std::vector<int64_t> rows;
    for (size_t b = 0; b + 1 < batch_.offsets.size(); ++b)
      for (int64_t i = batch_.offsets[b]; i + 1 < batch_.offsets[b + 1]; ++i) rows.push_back(i);
    rows_ = at::tensor(rows, at::kLong);
    const auto options = at::TensorOptions().dtype(at::kDouble);
    weight_ = at::linspace(-1, 2, rows_.numel(), options);
    entropy_weight_ = at::linspace(1, -0.5, rows_.numel(), options);
  }
  Tensor of(const Model& model) const {
    const Tensor hidden = model.hidden(batch_);
    if (model.kind() == ModelKind::value) return (model.values(hidden, rows_) * weight_).sum();
    const auto [logp, entropy] = model.log_prob(hidden, rows_, batch_.tokens.index_select(0, rows_ + 1), 0.7, true);
    return (logp * weight_).sum() + (entropy * entropy_weight_).sum();
  }

 private:
  Batch batch_;
  Tensor rows_, weight_, entropy_weight_;
};

}  // namespace

std::vector<std::vector<int32_t>> made_up_sequences(const std::vector<int64_t>& lengths, int64_t vocabulary) {
  const Philox draws(7, Purpose::evaluate);
  std::vector<std::vector<int32_t>> result;
  uint64_t at = 0;
  for (const auto n : lengths) {
    auto& sequence = result.emplace_back();
    for (int64_t i = 0; i < n; ++i) sequence.push_back(int32_t(draws.uniform(at++) * double(vocabulary)));
  }
  return result;
}

std::vector<GradientComparison> compare_gradients(Model& model) {
  DSE_CHECK(model.dtype() == at::kDouble, "central differences want float64");
  const Objective objective(model.graph().vocabulary);
  model.enable_training();
  model.zero_grad();
  {
    at::AutoGradMode grad(true);
    torch::autograd::backward({objective.of(model)}, {});
  }
  at::NoGradGuard no_grad;
  std::vector<GradientComparison> result;
  for (const auto& named : model.tensors()) {
    const auto& [spec, tensor, gradient] = std::tie(named.spec, named.tensor, named.grad);
    const Philox draws(3, Purpose::evaluate, name_hash(spec->tensor), uint64_t(std::max<int64_t>(0, spec->first_row)));
    Tensor direction = at::empty(tensor.sizes(), tensor.options());
    for (int64_t i = 0; i < direction.numel(); ++i) direction.mutable_data_ptr<double>()[i] = draws.normal(uint64_t(i));
    Tensor target = tensor;
    const Tensor before = tensor.clone();
    target.copy_(before + kStep * direction);
    const double up = objective.of(model).item<double>();
    target.copy_(before - kStep * direction);
    const double down = objective.of(model).item<double>();
    target.copy_(before);
    result.push_back({spec->tensor, (gradient * direction).sum().item<double>(), (up - down) / (2 * kStep),
                      gradient.abs().max().item<double>()});
  }
  return result;
}

}  // namespace dsengine

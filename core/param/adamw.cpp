#include "param/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "base/check.h"

namespace dsengine {

namespace {

constexpr int64_t kBlock = 1 << 14;  // elements a partial sum, whatever the thread count

double sum_of_squares(const at::Tensor& flat) {
  const float* x = flat.const_data_ptr<float>();
  const int64_t n = flat.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      double sum = 0;
      for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); ++i) sum += double(x[i]) * x[i];
      partial[b] = sum;
    }
  });
  double total = 0;
  for (const double p : partial) total += p;
  return total;
}

}  // namespace

double global_grad_norm(const std::vector<ParamUnit*>& units) {
  double total = 0;
  for (const auto* unit : units) total += sum_of_squares(unit->grad());
  return std::sqrt(total);
}

AdamW::AdamW(std::vector<ParamUnit*> units, AdamWSettings settings, std::vector<double> rate_factors)
    : units_(std::move(units)), settings_(settings), rate_factors_(std::move(rate_factors)) {
  rate_factors_.resize(units_.size(), 1);
  for (auto* unit : units_) {
    DSE_CHECK(unit->trained() && unit->flat().scalar_type() == at::kFloat, "unit {}", unit->name());
    first_.push_back(at::zeros_like(unit->grad()));
    second_.push_back(at::zeros_like(unit->grad()));
  }
}

double AdamW::step(double learning_rate) {
  const double norm = global_grad_norm(units_);
  DSE_CHECK_USER(std::isfinite(norm),
                 "the gradient norm is not finite: lower the learning rate, or look at the data of this step");
  ++steps_;
  const auto& s = settings_;
  const float clip = s.grad_clip > 0 && norm > s.grad_clip ? float(s.grad_clip / (norm + 1e-6)) : 1.0f;
  const double correction1 = 1 - std::pow(s.beta1, double(steps_));
  const double correction2 = 1 - std::pow(s.beta2, double(steps_));
  const float root2 = float(std::sqrt(correction2)), epsilon = float(s.epsilon);
  const float b1 = float(s.beta1), b2 = float(s.beta2), c1 = float(1 - s.beta1), c2 = float(1 - s.beta2);
  for (size_t u = 0; u < units_.size(); ++u) {
    const double rate = learning_rate * rate_factors_[u];
    const float step_size = float(rate / correction1), keep = float(1 - rate * s.weight_decay);
    at::Tensor weights = units_[u]->trained_flat();
    float* w = weights.mutable_data_ptr<float>();
    const float* g = units_[u]->grad().const_data_ptr<float>();
    float* m = first_[u].mutable_data_ptr<float>();
    float* v = second_[u].mutable_data_ptr<float>();
    const int64_t decayed = units_[u]->trained_decayed();
    const auto update = [=](int64_t first, int64_t last, float kept) {
      for (int64_t i = first; i < last; ++i) {
        const float gradient = g[i] * clip;
        m[i] = b1 * m[i] + c1 * gradient;
        v[i] = b2 * v[i] + c2 * gradient * gradient;
        w[i] = w[i] * kept - step_size * m[i] / (std::sqrt(v[i]) / root2 + epsilon);
      }
    };
    at::parallel_for(0, weights.numel(), kBlock, [&](int64_t first, int64_t last) {
      update(first, std::min(last, decayed), keep);
      update(std::max(first, decayed), last, 1.0f);
    });
  }
  return norm;
}

}  // namespace dsengine

// AdamW on flat units against the update rule written out in float64 (Loshchilov and Hutter 2019, algorithm 2,
// as torch.optim.AdamW implements it), the clip of the global norm, and the layout that both rest on.
#include "param/adamw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "base/check.h"
#include "comm/local.h"

#include "ops/built_kernels.h"

namespace dsengine {
namespace {

std::vector<ParamBlock> blocks() {
  return {{{{"norm", {5}, Init::ones}}},
          {{{"q", {3, 4}}, {"k", {2, 4}}}},
          {{{"bias", {3}, Init::zeros}}},
          {{{"down", {7, 2}}}}};
}

TEST(ParamStorage, LaysMatricesOutFirstAligned) {
  ParamStorage unit("layers.0", blocks(), Device::host(), at::kFloat);
  EXPECT_EQ(unit.layout().parameter_count(), 5 + 20 + 3 + 14);
  EXPECT_EQ(unit.layout().decayed_numel(), 32 + 32);  // 20 and 14 elements, each padded to 128 bytes
  EXPECT_EQ(unit.flat().numel(), 64 + 64);
  for (size_t b = 0; b < 4; ++b)
    EXPECT_EQ(
        (reinterpret_cast<uintptr_t>(unit.block(b).data_ptr()) - reinterpret_cast<uintptr_t>(unit.flat().data_ptr())) %
            128,
        0u);
  // The parts of a block are adjacent rows of it, and all are views of the flat buffer, whose padding is zero.
  for (size_t b = 0; b < 4; ++b) unit.part(b, 0).zero_();
  at::Tensor k = unit.part(1, 1);
  k.fill_(7);
  EXPECT_EQ(unit.block(1).narrow(0, 3, 2).min().item<float>(), 7);
  EXPECT_EQ(unit.flat().sum().item<float>(), 56);
  unit.train();
  EXPECT_EQ(unit.grad_block(2).data_ptr(), unit.grad_part(2, 0).data_ptr());
}

// By the kernels, and by the reference alone.
class AdamWOf : public testing::TestWithParam<const Kernels& (*)()> {};
INSTANTIATE_TEST_SUITE_P(Kernels, AdamWOf, testing::Values(built_kernels, reference_kernels));

struct Exact {  // one element
  double w, m = 0, v = 0;
  void step(double g, double rate, double decay, int t, const AdamWSettings& s) {
    m = s.beta1 * m + (1 - s.beta1) * g;
    v = s.beta2 * v + (1 - s.beta2) * g * g;
    w -= rate * decay * w;
    w -= rate * (m / (1 - std::pow(s.beta1, t))) / (std::sqrt(v / (1 - std::pow(s.beta2, t))) + s.epsilon);
  }
};

TEST_P(AdamWOf, IsTheUpdateRule) {
  const AdamWSettings settings{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .grad_clip = 1.0};
  ParamStorage a("a", blocks(), Device::host(), at::kFloat), b("b", blocks(), Device::host(), at::kFloat);
  at::manual_seed(2);
  std::vector<ParamStorage*> units{&a, &b};
  std::vector<std::vector<Exact>> exact(2);
  for (int u = 0; u < 2; ++u) {
    units[u]->flat().copy_(at::randn(units[u]->flat().sizes()));
    units[u]->train();
    for (int64_t i = 0; i < units[u]->flat().numel(); ++i) exact[u].push_back({units[u]->flat()[i].item<double>()});
  }
  LocalCommunicator alone;
  AdamW optimizer(GetParam()(), units, settings);
  for (int t = 1; t <= 6; ++t) {
    const double size = t % 2 ? 3.0 : 0.01;  // above and below the clip
    double squares = 0;
    for (auto* unit : units) {
      unit->grad().copy_(at::randn(unit->grad().sizes()) * size);
      squares += unit->grad().to(at::kDouble).square().sum().item<double>();
    }
    const double norm = std::sqrt(squares), rate = 0.02 / t;
    EXPECT_NEAR(optimizer.step(rate, alone), norm, 1e-9 * norm);
    EXPECT_EQ(optimizer.steps(), t);
    const double clip = norm > 1 ? 1 / (norm + 1e-6) : 1;
    for (int u = 0; u < 2; ++u)
      for (int64_t i = 0; i < units[u]->flat().numel(); ++i)
        exact[u][size_t(i)].step(units[u]->grad()[i].item<double>() * clip, rate,
                                 i < units[u]->layout().decayed_numel() ? settings.weight_decay : 0, t, settings);
  }
  // float32 state against float64: a few units in the last place a step, of weights up to 4.
  for (int u = 0; u < 2; ++u)
    for (int64_t i = 0; i < units[u]->flat().numel(); ++i)
      EXPECT_NEAR(units[u]->flat()[i].item<double>(), exact[u][size_t(i)].w, 5e-6) << u << " " << i;
}

TEST_P(AdamWOf, ANonFiniteGradientChangesNothing) {
  ParamStorage unit("a", blocks(), Device::host(), at::kFloat);
  at::Tensor(unit.flat()).fill_(0.5);
  unit.train();
  LocalCommunicator alone;
  AdamW optimizer(GetParam()(), {&unit}, {});
  unit.grad().fill_(1);
  optimizer.step(0.1, alone);
  const at::Tensor before = unit.flat().clone();
  at::Tensor gradient = unit.grad();
  gradient[3] = NAN;
  EXPECT_THROW(optimizer.step(0.1, alone), UserError);
  EXPECT_TRUE(at::equal(unit.flat(), before));
  EXPECT_EQ(optimizer.steps(), 1);
}

}  // namespace
}  // namespace dsengine

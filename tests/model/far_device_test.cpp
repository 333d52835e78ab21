// Models on a device whose memory is not the host's (device/far_device.h): the reference's values and gradients of
// every family, and cached generation. LibTorch sums in another order where memory is aligned otherwise: 1e-5 of the
// largest.
#include "ops/far_kernels.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "comm/local.h"
#include "golden_models.h"
#include "param/adamw.h"

namespace dsengine {
namespace {

void expect_close(const at::Tensor& a, const at::Tensor& b, const std::string& what, double part = 1e-5) {
  const at::Tensor x = on_host(a), y = on_host(b);
  ASSERT_EQ(x.sizes(), y.sizes()) << what;
  if (x.numel() == 0) return;
  const double scale = std::max(1e-3, x.abs().max().item<double>());
  EXPECT_LE((x - y).abs().max().item<double>(), part * scale) << what;
}

class FarModel : public testing::TestWithParam<std::string> {};

TEST_P(FarModel, IsTheReferences) {
  const std::string name = GetParam();
  const auto sequences = random_sequences({9, 1, 14}, 97);
  const auto values = [&](const Kernels& kernels) {
    Model model = golden_model(name, golden_kind(name), at::kFloat, kernels);
    model.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
    model.enable_training({"norms", "biases", "embeddings"});
    const Batch batch = pack(model.device(), {sequences.begin(), sequences.end()});
    std::vector<at::Tensor> all;
    const at::AutoGradMode grad(true);
    for (const bool recompute : {false, true}) {
      model.set_recompute(recompute);
      const at::Tensor h = model.hidden(batch);
      const at::Tensor rows = model.device().upload(std::vector<int64_t>{0, 3, 8, 9, 20});
      if (model.kind() == ModelKind::value) {
        all.push_back(model.values(h, rows));
        torch::autograd::backward({(all.back() * all.back()).sum()}, {});
      } else {
        const auto out = model.log_prob(h, rows, batch.tokens.index_select(0, rows), 0.7, true);
        all.push_back(out.logp), all.push_back(out.entropy);
        torch::autograd::backward({(out.logp * out.logp).sum() + out.entropy.sum()}, {});
      }
    }
    for (const auto* unit : model.units())
      if (unit->trained()) all.push_back(unit->grad());
    return all;
  };
  const auto here = values(reference_kernels()), far = values(far_kernels());
  ASSERT_EQ(here.size(), far.size());
  for (size_t i = 0; i < here.size(); ++i) {
    EXPECT_EQ(far[i].device(), far_device().where());
    expect_close(here[i], far[i], name + " " + std::to_string(i));
  }
}

// What is offloaded lies in the host's memory, and is updated there.
TEST_P(FarModel, IsTrainedFromTheHostsMemory) {
  const std::string name = GetParam();
  const auto format = name.size() % 2 ? MomentFormat::bits8 : MomentFormat::fp32;
  const auto sequences = random_sequences({9, 1, 14}, 97);
  const auto trained = [&](const Kernels& kernels, bool offload) {
    Model model = load_model(golden(name), built_plugins(), kernels,
                             {.kind = golden_kind(name), .streamed = {.offload = offload, .trained = offload}});
    model.enable_training({}, offload);
    AdamW optimizer(kernels, model.units(), {.epsilon = 1, .weight_decay = 0.1, .moments = format, .offload = offload});
    LocalCommunicator alone;
    const Batch batch = pack(model.device(), {sequences.begin(), sequences.end()});
    for (int step = 0; step < 2; ++step) {
      model.zero_grad();
      const at::AutoGradMode grad(true);
      torch::autograd::backward({model.hidden(batch).square().sum()}, {});
      optimizer.step(0.1, alone);  // with epsilon 1 an update is in proportion to its gradient
    }
    size_t streamed = 0;
    for (const auto* unit : model.units()) {
      EXPECT_EQ(unit->grad().is_cpu(), offload || !model.device().is_apart()) << unit->name();
      EXPECT_TRUE(!unit->streamed() || unit->flat().is_cpu()) << unit->name();
      streamed += unit->streamed();
    }
    EXPECT_EQ(streamed > 0, offload);
    return model;
  };
  const Model here = trained(reference_kernels(), false), far = trained(far_kernels(), true);
  const Model before = golden_model(name, golden_kind(name), at::kFloat, reference_kernels());
  const auto a = here.units(), b = far.units(), from = before.units();
  for (size_t u = 0; u < a.size(); ++u)
    expect_close(a[u]->flat() - from[u]->flat(), on_host(b[u]->flat()) - from[u]->flat(), a[u]->name(), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Golden, FarModel, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace dsengine

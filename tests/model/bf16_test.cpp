// Models that compute in bfloat16: what they say is near the float32 model's, as near as weights of 8 bits and their
// products let it be; what is trained moves by steps that bfloat16 does not show.
#include <gtest/gtest.h>

#include "model/hf/adapter_files.h"
#include "model/hf/load.h"
#include "model/hf/save.h"
#include "other_device.h"
#include "plugin/fixtures.h"

namespace dsengine {
namespace {

class Bf16Model : public testing::TestWithParam<std::string> {};

// Log-probabilities, entropies and values within 5e-2 of the largest, as models of the field are compared; gradients of
// a unit within a sixth of their norm, for they are made of both.
TEST_P(Bf16Model, IsNearTheFloat32Model) {
  const std::string name = GetParam();
  const auto exact = told_by(name, reference_kernels()), near = told_by(name, reference_kernels(), at::kBFloat16);
  ASSERT_EQ(exact.size(), near.size());
  const size_t told = golden_kind(name) == ModelKind::value ? 2 : 4;
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_EQ(near[i].scalar_type(), at::kFloat);
    if (i < told) {
      expect_close(exact[i], near[i], name + " " + std::to_string(i), 5e-2);
      continue;
    }
    const double norm = exact[i].norm().item<double>();
    EXPECT_LE((exact[i] - near[i]).norm().item<double>(), norm / 6 + 1e-6) << name << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Bf16Model, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

// 64 steps of a thousandth of a weight's spacing each, all one way.
TEST(Bf16Training, KeepsWhatBf16DoesNotShow) {
  Model model = golden_model("llama_gqa", ModelKind::language, at::kBFloat16, reference_kernels());
  model.enable_training();
  AdamW optimizer(reference_kernels(), model.units(), {.grad_clip = 0});
  LocalCommunicator alone;
  ParamStorage& unit = *model.units()[1];
  const at::Tensor before = unit.trained_flat().clone(), shown = unit.flat().clone();
  EXPECT_EQ(unit.flat().scalar_type(), at::kBFloat16);
  EXPECT_EQ(before.scalar_type(), at::kFloat);
  for (int step = 0; step < 64; ++step) {
    for (auto* each : model.units()) at::Tensor(each->grad()).fill_(1);
    optimizer.step(1e-8, alone);
  }
  EXPECT_TRUE(at::equal(unit.flat(), unit.trained_flat().to(at::kBFloat16)));
  const at::Tensor small = before.abs() < 1e-2;  // 64 steps of 1e-8 show in float32
  EXPECT_GT((unit.trained_flat() < before).logical_and(small).sum().item<int64_t>(), small.sum().item<int64_t>() / 2);
  EXPECT_GT(at::eq(unit.flat(), shown).sum().item<int64_t>(), shown.numel() * 9 / 10);
}

// Without float32 values beside: 20 steps of a 20th of a weight's spacing each, which rounding to the nearest would
// lose.
TEST(Bf16Training, RoundsSmallUpdatesByDraws) {
  Model model = golden_model("llama_gqa", ModelKind::language, at::kBFloat16, reference_kernels());
  ParamStorage& unit = *model.units()[1];
  at::Tensor(unit.flat()).fill_(0.3);
  model.enable_training({}, false, false);
  AdamW optimizer(reference_kernels(), model.units(), {.grad_clip = 0, .seed = 3});
  EXPECT_FALSE(unit.wide());
  EXPECT_EQ(unit.trained_flat().scalar_type(), at::kBFloat16);
  EXPECT_EQ(unit.grad().scalar_type(), at::kFloat);
  LocalCommunicator alone;
  const double before = unit.trained_flat().to(at::kDouble).mean().item<double>();
  constexpr double spacing = 1.0 / 512, rate = spacing / 20;
  constexpr int steps = 20;
  for (int step = 0; step < steps; ++step) {
    for (auto* each : model.units()) at::Tensor(each->grad()).fill_(1);  // of which Adam makes steps of the rate
    optimizer.step(rate, alone);
  }
  const at::Tensor after = unit.trained_flat().to(at::kDouble);
  // Each rounding is off by a spacing with the probability 1 / 20 or so.
  const double one = spacing * std::sqrt(steps * 0.05), mean = one / std::sqrt(double(after.numel()));
  EXPECT_NEAR(after.mean().item<double>() - before, -steps * rate, 5 * mean);
  EXPECT_NEAR(after.std().item<double>(), one, one / 4) << "each has draws of its own";
}

// A directory has the float32 values, and reading them makes the same model.
TEST(Bf16Training, SavesWhatWasTrained) {
  const ScratchFolder folder;
  Model model = golden_model("gpt2", ModelKind::language, at::kBFloat16, reference_kernels());
  model.enable_training();
  for (auto* unit : model.units()) {
    at::Tensor(unit->trained_flat()).add_(1e-5);
    unit->settle();
  }
  std::filesystem::create_directory(folder.path() / "saved");
  save_model(model, folder.path() / "saved", golden("gpt2"));
  Model again = load_model(folder.path() / "saved", built_plugins(), reference_kernels(), {});
  for (size_t u = 0; u < model.units().size(); ++u)
    for (size_t b = 0; b < model.units()[u]->blocks().size(); ++b)
      EXPECT_TRUE(at::equal(again.units()[u]->kept_part(b, 0), model.units()[u]->kept_part(b, 0)));
  // And into one that is trained already, as a stage that goes on does.
  Model other = golden_model("gpt2", ModelKind::language, at::kBFloat16, reference_kernels());
  other.enable_training();
  load_weights(other, folder.path() / "saved", {});
  for (size_t u = 0; u < model.units().size(); ++u)
    for (size_t b = 0; b < model.units()[u]->blocks().size(); ++b) {
      EXPECT_TRUE(at::equal(other.units()[u]->block(b), model.units()[u]->block(b)));
      EXPECT_TRUE(at::equal(other.units()[u]->kept_part(b, 0), model.units()[u]->kept_part(b, 0)));
    }
}

// An adapter too, which the next stage may train on.
TEST(Bf16Training, SavesAnAdapterAsItWasTrained) {
  const ScratchFolder folder;
  Model model = golden_model("llama_gqa", ModelKind::language, at::kBFloat16, reference_kernels());
  model.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
  model.enable_training();
  for (auto* unit : model.weights().adapter->units()) {
    at::Tensor(unit->trained_flat()).add_(1e-5);
    unit->settle();
  }
  save_adapter(model, folder.path(), golden("llama_gqa"), {}, {});
  Model again = load_model(folder.path(), built_plugins(), reference_kernels(), {.dtype = at::kBFloat16});
  again.enable_training();
  const auto saved = model.weights().adapter->units(), loaded = again.weights().adapter->units();
  ASSERT_EQ(saved.size(), loaded.size());
  for (size_t u = 0; u < saved.size(); ++u) {
    EXPECT_EQ(loaded[u]->trained_flat().scalar_type(), at::kFloat);
    for (size_t b = 0; b < saved[u]->blocks().size(); ++b)
      for (size_t p = 0; p < saved[u]->blocks()[b].parts.size(); ++p)
        EXPECT_TRUE(at::equal(saved[u]->kept_part(b, p), loaded[u]->kept_part(b, p)));
  }
}

}  // namespace
}  // namespace dsengine

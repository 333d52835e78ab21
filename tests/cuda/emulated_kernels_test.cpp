// The kernels for graphics cards, compiled for the host and run on an emulator of a card (emulator.h): what each
// computes is compared with the reference in float64, at ragged, odd and empty shapes.
#include <gtest/gtest.h>

#include "cuda/thin_products.h"
#include "model/other_device.h"
#include "ops/verify_kernel.h"
#include "rl/other_device.h"

namespace dsengine {
namespace {

const PluginRegistry& emulated_plugins() {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/emulated"}, {}, {});
  return registry;
}

const Kernels& emulated_kernels() {
  static const Kernels kernels(emulated_plugins(), Device::host());
  return kernels;
}

TEST(EmulatedKernels, SayWhatTheReferenceSays) {
  const auto items = emulated_plugins().items(DSE_KERNEL);
  EXPECT_GE(items.size(), 40u);
  for (const Item* item : items) {
    const auto checks = verify_kernel(*item);
    EXPECT_TRUE(all_ok(checks)) << item->name << "\n" << format_checks(checks);
  }
}

TEST(EmulatedKernels, MultiplyAFewRows) { expect_thin_products(emulated_kernels()); }

// Together, bound to models: the same values and gradients; in bfloat16 up to its rounding.
TEST(EmulatedKernels, CarryEveryModel) {
  for (const std::string& name : golden_names("causal_lm") + golden_names("reward"))
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto here = told_by(name, reference_kernels(), type), emulated = told_by(name, emulated_kernels(), type);
      ASSERT_EQ(here.size(), emulated.size());
      for (size_t i = 0; i < here.size(); ++i)
        expect_close(here[i], emulated[i], name + " " + std::to_string(i), type == at::kFloat ? 1e-4 : 1e-1);
    }
}

// And to stages, with generation from a cache.
TEST(EmulatedKernels, CarryARun) {
  const std::string stages = std::string(kSftStage) + kRewardStage + kPpoStage;
  expect_alike(TinyRun(), emulated_kernels(), stages, {"max_steps=2"});
  const TinyRun tiny;
  const auto narrow = run(tiny, "narrow", emulated_kernels(), stages, {"max_steps=2", "dtype=bf16"});
  for (const Json& step : lines_of(narrow / "ppo" / "metrics.jsonl"))
    EXPECT_LT(step.at("rollout_logp_difference_mean").get<double>(), 0.005);
}

}  // namespace
}  // namespace dsengine

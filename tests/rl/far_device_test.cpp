// Stages on a device whose memory is not the host's (device/far_device.h), which no plugin has kernels for: the
// reference's run on the host. LibTorch sums in another order where memory is aligned otherwise.
#include "ops/far_kernels.h"

#include <gtest/gtest.h>

#include "rl/pipeline.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

// Numbers up to rounding, everything else as it is: the answers too.
void expect_alike(const std::filesystem::path& file, const std::filesystem::path& other) {
  const Json a = Json(lines_of(file)).flatten(), b = Json(lines_of(other)).flatten();
  ASSERT_GT(a.size(), 0u) << file;
  EXPECT_EQ(a.size(), b.size()) << file;
  for (const auto& [key, value] : a.items()) {
    const Json found = b.value(key, Json());
    if (value.is_number() && found.is_number())
      EXPECT_NEAR(value.get<double>(), found.get<double>(), 1e-3 * (1 + std::abs(value.get<double>()))) << key;
    else
      EXPECT_EQ(value, found) << key;
  }
}

constexpr const char* kDpoStage = R"(
[[stage]]
name = "dpo"
algorithm = "dpo"
data.sources = [{ path = "pairs.jsonl" }]
)";

std::string stage_of(const char* algorithm) {
  std::string stage = kPpoStage;
  return stage.replace(stage.find("\"ppo\"\nlearning"), 5, fmt::format("\"{}\"", algorithm));
}

std::filesystem::path run(const TinyRun& tiny, const char* folder, const Kernels& kernels, const std::string& stages,
                          std::vector<std::string> sets) {
  sets.push_back(tiny.elsewhere(folder));
  const RunConfig config = tiny.config(stages, sets);
  const LogWatch log;
  const StopSignal stop;
  const int64_t taken = far::Memory::all().taken();
  EXPECT_TRUE(Pipeline(config, built_plugins(), kernels, stop).run_all());
  EXPECT_EQ(far::Memory::all().taken() > taken, kernels.device().is_apart());
  return config.output_dir;
}

void expect_alike(const TinyRun& tiny, const std::string& stages, const std::vector<std::string>& sets) {
  const auto here = run(tiny, "here", reference_kernels(), stages, sets);
  const auto far = run(tiny, "far", far_kernels(), stages, sets);
  for (const char* stage : {"sft", "reward", "ppo", "dpo"})
    if (std::filesystem::exists(here / stage))
      for (const char* log : {"metrics.jsonl", "eval.jsonl"}) expect_alike(here / stage / log, far / stage / log);
}

class FarRun : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(FarRun, IsTheReferencesRun) {
  expect_alike(TinyRun(), std::string(kSftStage) + kRewardStage + kPpoStage, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Settings, FarRun,
    testing::Values(std::vector<std::string>{}, std::vector<std::string>{"moments=8bit", "ema_decay=0.9"},
                    std::vector<std::string>{"moments=bf16", "recompute=true", "micro_batch_size=2"},
                    std::vector<std::string>{"lora.rank=4", "lora.base=nf4"},
                    std::vector<std::string>{"offload.moments=true", "offload.gradients=true", "offload.average=true",
                                             "offload.weights=true", "offload.frozen=true"},
                    std::vector<std::string>{"stage.ppo.rollout.top_k=5", "stage.ppo.rollout.repetition_penalty=1.2",
                                             "stage.ppo.rollout.slots=2"},
                    std::vector<std::string>{"stage.ppo.rollout.weights=int8"}));

TEST(FarDevice, ServesEveryAlgorithm) {
  for (const char* algorithm : {"grpo", "rloo", "gspo", "reinforce++"}) {
    SCOPED_TRACE(algorithm);
    expect_alike(TinyRun(), kRewardStage + stage_of(algorithm), {"stage.ppo.rollout.samples_per_prompt=2"});
  }
  expect_alike(TinyRun(), kDpoStage, {});
}

// What a checkpoint there has is what went into it: a stage that is made longer is the longer stage, bit for bit.
TEST(FarDevice, ResumesToTheSameBits) {
  const TinyRun tiny;
  const std::string stages = std::string(kSftStage) + kRewardStage + kPpoStage;
  const std::vector<std::string> sets{"moments=8bit", "ema_decay=0.9", "stage.ppo.lora.rank=4"};
  const auto with_steps = [&](const char* steps) {
    auto all = sets;
    all.push_back(std::string("stage.ppo.max_steps=") + steps);
    return all;
  };
  const auto whole = run(tiny, "whole", far_kernels(), stages, with_steps("3"));
  run(tiny, "parts", far_kernels(), stages, with_steps("1"));
  const auto parts = run(tiny, "parts", far_kernels(), stages, with_steps("3"));
  EXPECT_EQ(steps_of(whole / "ppo"), steps_of(parts / "ppo"));
  for (const char* model : {"model", "critic", "ema"})
    EXPECT_EQ(weights_of(whole / "ppo" / model), weights_of(parts / "ppo" / model)) << model;
}

}  // namespace
}  // namespace dsengine

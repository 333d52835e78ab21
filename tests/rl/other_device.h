// Runs on another device beside the reference's on the host: whole stages, every algorithm, and going on.
#pragma once
#include <gtest/gtest.h>

#include "rl/pipeline.h"
#include "rl/tiny_run.h"

namespace dsengine {

// Numbers up to rounding, everything else as it is: the answers too.
inline void expect_alike(const std::filesystem::path& file, const std::filesystem::path& other) {
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

inline constexpr const char* kDpoStage = R"(
[[stage]]
name = "dpo"
algorithm = "dpo"
data.sources = [{ path = "pairs.jsonl" }]
)";

inline std::string stage_of(const char* algorithm) {
  std::string stage = kPpoStage;
  return stage.replace(stage.find("\"ppo\"\nlearning"), 5, fmt::format("\"{}\"", algorithm));
}

inline std::filesystem::path run(const TinyRun& tiny, const char* folder, const Kernels& kernels,
                                 const std::string& stages, std::vector<std::string> sets) {
  sets.push_back(tiny.elsewhere(folder));
  const RunConfig config = tiny.config(stages, sets);
  const LogWatch log;
  const StopSignal stop;
  EXPECT_TRUE(Pipeline(config, built_plugins(), kernels, stop).run_all());
  return config.output_dir;
}

// there: the kernels of another device.
inline void expect_alike(const TinyRun& tiny, const Kernels& there, const std::string& stages,
                         const std::vector<std::string>& sets) {
  const auto here = run(tiny, "here", reference_kernels(), stages, sets);
  const auto far = run(tiny, "there", there, stages, sets);
  for (const char* stage : {"sft", "reward", "ppo", "dpo"})
    if (std::filesystem::exists(here / stage))
      for (const char* log : {"metrics.jsonl", "eval.jsonl"}) expect_alike(here / stage / log, far / stage / log);
}

// What a run may be set to that a device must serve.
inline const std::vector<std::vector<std::string>> kSettings{
    {},
    {"moments=8bit", "ema_decay=0.9"},
    {"moments=bf16", "recompute=true", "micro_batch_size=2"},
    {"lora.rank=4", "lora.base=nf4"},
    {"offload.moments=true", "offload.gradients=true", "offload.average=true", "offload.weights=true",
     "offload.frozen=true"},
    {"stage.ppo.rollout.top_k=5", "stage.ppo.rollout.repetition_penalty=1.2", "stage.ppo.rollout.slots=2"},
    {"stage.ppo.rollout.weights=int8"}};

inline void expect_every_algorithm(const Kernels& there) {
  for (const char* algorithm : {"grpo", "rloo", "gspo", "reinforce++"}) {
    SCOPED_TRACE(algorithm);
    expect_alike(TinyRun(), there, kRewardStage + stage_of(algorithm),
                 {"stage.ppo.rollout.samples_per_prompt=2", "dtype=fp32"});
  }
  expect_alike(TinyRun(), there, kDpoStage, {"dtype=fp32"});
}

// What a checkpoint there has is what went into it: a stage that is made longer is the longer stage, bit for bit.
inline void expect_resumed_to_the_same_bits(const Kernels& there, const std::vector<std::string>& more = {}) {
  const TinyRun tiny;
  const std::string stages = std::string(kSftStage) + kRewardStage + kPpoStage;
  const std::vector<std::string> sets{"moments=8bit", "ema_decay=0.9", "stage.ppo.lora.rank=4"};
  const auto with_steps = [&](const char* steps) {
    auto all = sets + more;
    all.push_back(std::string("stage.ppo.max_steps=") + steps);
    return all;
  };
  const auto whole = run(tiny, "whole", there, stages, with_steps("3"));
  run(tiny, "parts", there, stages, with_steps("1"));
  const auto parts = run(tiny, "parts", there, stages, with_steps("3"));
  EXPECT_EQ(steps_of(whole / "ppo"), steps_of(parts / "ppo"));
  for (const char* model : {"model", "critic", "ema"})
    EXPECT_EQ(weights_of(whole / "ppo" / model), weights_of(parts / "ppo" / model)) << model;
}

}  // namespace dsengine

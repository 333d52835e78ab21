// Answers from narrower weights: what a step tells of them, that they are corrected for, and that training and what is
// saved stay exact.
#include "rl/generation_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/counting_allocator.h"
#include "rl/pipeline.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

std::vector<Json> ppo_of(const TinyRun& tiny, const char* folder, std::vector<std::string> sets) {
  count_host_memory();
  sets.push_back(tiny.elsewhere(folder));
  const RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage + kPpoStage, sets);
  const LogWatch log;
  const StopSignal stop;
  EXPECT_TRUE(Pipeline(config, built_plugins(), built_kernels(), stop).run_all());
  std::vector<Json> lines;
  std::ifstream in(config.output_dir / "ppo" / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, folder));
  return lines;
}

TEST(GenerationMemory, AStepTellsOfNarrowerWeights) {
  const TinyRun tiny;
  const auto exact = ppo_of(tiny, "fp32", {}), narrow = ppo_of(tiny, "int8", {"stage.ppo.rollout.weights=int8"});
  ASSERT_EQ(narrow.size(), 2u);
  for (const auto& step : exact) {
    EXPECT_EQ(step.at("rollout_logp_difference_max"), 0);
    EXPECT_FALSE(step.contains("seconds_pack"));
    EXPECT_EQ(step.at("memory_rollout_weights_mb"), 0);
  }
  for (const auto& step : narrow) {
    EXPECT_GT(step.at("rollout_logp_difference_max"), 0);
    EXPECT_LT(step.at("rollout_logp_difference_mean"), 0.05);
    EXPECT_GT(step.at("seconds_pack"), 0);
    EXPECT_LT(step.at("seconds_pack"), step.at("seconds_generate"));
    EXPECT_GT(step.at("memory_rollout_weights_mb"), 0);
  }
}

TEST(GenerationMemory, AnswersOfNarrowerWeightsAreCorrectedFor) {
  const TinyRun tiny;
  const std::vector<std::string> int8{"stage.ppo.rollout.weights=int8"};
  auto corrected = int8;
  corrected.emplace_back("stage.ppo.rollout.correction=truncate");
  const auto plain = ppo_of(tiny, "plain", int8), cut = ppo_of(tiny, "corrected", corrected);
  EXPECT_EQ(plain[0].at("reward"), cut[0].at("reward")) << "the first answers are the same";
  EXPECT_NE(plain[0].at("loss"), cut[0].at("loss"));
  for (const auto& step : cut) {
    EXPECT_NEAR(step.at("rollout_ratio_mean"), 1, 0.05);
    EXPECT_GT(step.at("rollout_ratio_max"), 1);
  }
}

TEST(GenerationMemory, KeysAndValuesMayBeHeldWhileTrainingGoesOn) {
  const TinyRun tiny;
  const auto plain = ppo_of(tiny, "given_back", {}), held = ppo_of(tiny, "held", {"stage.ppo.rollout.keep_cache=true"});
  for (size_t step = 0; step < plain.size(); ++step) {
    for (const char* same : {"reward", "loss"}) EXPECT_EQ(plain[step].at(same), held[step].at(same));
    const double cache = held[step].at("memory_kv_cache_mb"), train = held[step].at("memory_peak_train_mb");
    EXPECT_GT(cache, 0);
    EXPECT_NEAR(train - double(plain[step].at("memory_peak_train_mb")), cache, 0.1 * cache);
  }
}

}  // namespace
}  // namespace dsengine

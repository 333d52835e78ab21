// What is wrong with a stage before anything is read: one change to a sound configuration each, and the line that tells
// of it.
#include "rl/config_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "rl/tiny_run.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Fault {
  const char* name;
  size_t stage;  // 0 sft, 1 reward, 2 ppo
  std::function<void(StageConfig&)> make;
  const char* told;
};
std::ostream& operator<<(std::ostream& out, const Fault& fault) { return out << fault.name; }

DataSource texts() {
  DataSource source;
  source.path = std::filesystem::path(DSE_SOURCE_DIR) / "examples/tiny/data/sft.jsonl";
  return source;
}
RewardSource named(const std::string& name) { return {name, "overlong", "", 1, {}}; }

const Fault kFaults[] = {
    {"UnknownAlgorithm", 2, [](auto& s) { s.algorithm = "pppo"; }, "pppo"},
    {"AnothersOptions", 0, [](auto& s) { s.plugin["ppo"] = {}; },
     "plugin.ppo sets options of an algorithm the stage does not use (sft)"},
    {"NoData", 0, [](auto& s) { s.data.sources.clear(); }, "has no data: set data.sources"},
    {"HalfAPair", 1, [](auto& s) { s.mini_batch_size = 5; }, "count rows, two a pair: 5 and 0 should be even"},
    {"LoraWithoutARank", 2, [](auto& s) { s.critic.lora.alpha = 3; }, "lora.rank is 0: there is no adapter"},
    {"TextsThatDoNotCount", 2, [](auto& s) { s.ptx.sources = {texts()}; }, "ptx has texts, but ptx.coefficient is 0"},
    {"NoTexts", 2, [](auto& s) { s.ptx.coefficient = 1; }, "ptx has no texts"},
    {"TextsWithoutAnActor", 1, [](auto& s) { s.ptx.coefficient = 1, s.ptx.sources = {texts()}; },
     "ptx adds to the actor's loss, and 'reward' trains no actor"},
    {"RewardAndRewards", 2, [](auto& s) { s.reward.weight = 2, s.rewards = {named("a")}; },
     "both reward and rewards are given"},
    {"KlOfRecords", 0, [](auto& s) { s.target_kl = 0.1; }, "target_kl compares the policy with the one that sampled"},
    {"CorrectionOfRecords", 0, [](auto& s) { s.rollout.correction = Correction::mask; },
     "rollout.correction weighs the answers of a rollout, and 'sft' trains on none"},
    {"OneAnswerToCompare", 2, [](auto& s) { s.rollout.dynamic_sampling = true; },
     "set rollout.samples_per_prompt to 2 or more"},
    {"RoundsThatAreRecorded", 2,
     [](auto& s) { s.rollout.dynamic_sampling = true, s.rollout.samples_per_prompt = 2, s.rollout.record = "here"; },
     "hold one round a step"},
    {"GroupOfOne", 2, [](auto& s) { s.algorithm = "grpo"; },
     "the algorithm 'grpo' compares at least 2 answers a prompt"},
    {"TwoOfAName", 2,
     [](auto& s) {
       s.rewards = {named("a"), named("a")};
     },
     "two rewards are called 'a'"},
    {"TwoOfAPlugin", 2,
     [](auto& s) {
       s.rewards = {named(""), named("")};
     },
     "two rewards are called 'overlong'"},
    {"NameWithSpace", 2, [](auto& s) { s.rewards = {named("a b")}; }, "the reward's name 'a b' should be letters"},
    {"NameOfAMetric", 2, [](auto& s) { s.rewards = {named("failed")}; }, "and no metric of the engine's"},
    {"ModelThatIsNotRead", 2, [](auto& s) { s.rewards = {named("a")}, s.rewards[0].from = "reward"; },
     "the reward 'a' reads no model"},
    {"FromALaterStage", 0, [](auto& s) { s.actor.from = "ppo"; },
     "takes a model from 'ppo', which does not come before"},
    {"FromItself", 2, [](auto& s) { s.critic.from = "ppo"; }, "takes a model from 'ppo', which does not come before"},
    {"FromNobody", 2, [](auto& s) { s.reference.from = "nobody"; },
     "'nobody', which is neither an earlier stage nor a"},
    {"FromAFile", 2, [](auto& s) { s.reward.from = texts().path.string(); }, "but a file: give the directory it is in"},
};

class StageFaults : public testing::TestWithParam<Fault> {};
INSTANTIATE_TEST_SUITE_P(Faults, StageFaults, testing::ValuesIn(kFaults),
                         [](const auto& fault) { return fault.param.name; });

TEST_P(StageFaults, AreToldWithTheStage) {
  const LogWatch log;
  const TinyRun tiny;
  RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage + kPpoStage);
  for (size_t i = 0; i < 3; ++i) EXPECT_NO_THROW(check_stage(config, i, built_plugins()));
  StageConfig& stage = config.stages[GetParam().stage];
  const std::string name = stage.name;
  GetParam().make(stage);
  EXPECT_THAT(error_of([&] { check_stage(config, GetParam().stage, built_plugins()); }),
              AllOf(HasSubstr("stage '" + name + "'"), HasSubstr(GetParam().told)));
}

// One stage's adapter gives the keys that a default for all stages has set in the others a meaning.
TEST(ConfigChecks, KeysOfLoraStandWhereAnyStageHasAnAdapter) {
  const TinyRun tiny;
  RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage);
  config.stages[0].actor.lora.alpha = config.stages[1].actor.lora.alpha = 3;
  config.stages[1].actor.lora.rank = 2;
  EXPECT_NO_THROW(check_stage(config, 0, built_plugins()));
}

// The host cannot cut a loss of the whole minibatch: one that reads what the rollout told corrects itself.
TEST(ConfigChecks, ARawLossIsCorrectedByItsAlgorithmAlone) {
  const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"},
                                {{fixture("raw_corrected"), ""}, {fixture("raw_uncorrected"), ""}});
  const LogWatch log;
  const TinyRun tiny;
  RunConfig config = tiny.config(kPpoStage);
  for (const auto correction : {Correction::none, Correction::truncate, Correction::mask})
    for (const char* algorithm : {"raw_corrected", "raw_uncorrected"}) {
      auto& stage = config.stages[0];
      stage.algorithm = algorithm, stage.rollout.correction = correction;
      const auto told = error_of([&] { check_stage(config, 0, registry); });
      if (stage.algorithm == "raw_corrected" || correction == Correction::none)
        EXPECT_EQ(told, "") << algorithm;
      else
        EXPECT_THAT(told, AllOf(HasSubstr("stage 'ppo': rollout.correction"),
                                HasSubstr("'raw_uncorrected' has one of the whole minibatch")));
    }
}

TEST(ConfigChecks, WhatAModelMayComeFrom) {
  const TinyRun tiny;
  const RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage);
  for (const std::string& from : {std::string(), std::string("sft"), tiny.model().string()})
    EXPECT_NO_THROW(check_from(config, 1, from)) << from;
}

}  // namespace
}  // namespace dsengine

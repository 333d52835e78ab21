// A run of three stages: which models each begins with, told by files and by weights that a learning rate of zero
// leaves as they were; what is done is not done again; what has changed is refused by name.
#include "rl/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "files/sealed.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const std::string kThree = std::string(kSftStage) + kRewardStage + kPpoStage;

struct Runs : testing::Test {
  // False: stopped. A stop is asked for once the log holds `stop_at`.
  bool run(const RunConfig& config, const std::string& stop_at = "", const std::string& until = "") {
    const LogWatch log(stop_at);
    const StopSignal stop;
    Pipeline pipeline(config, built_plugins(), built_kernels(), stop);
    const bool finished = until.empty() ? pipeline.run_all() : pipeline.run_until(until);
    already_done = log.count("already done");
    return finished;
  }
  std::string error(const RunConfig& config) {
    return error_of([&] { run(config); });
  }
  // Where an input of a stage came from.
  static std::string from(const fs::path& stage, const char* input) {
    return read_sealed(stage / "inputs.json").at(input).at("from");
  }

  TinyRun tiny;
  int64_t already_done = 0;
};

TEST_F(Runs, EachStageBeginsWithWhatEarlierOnesLeft) {
  const RunConfig config = tiny.config(kThree, {"stage.ppo.learning_rate=0", "stage.reward.learning_rate=0"});
  ASSERT_TRUE(run(config));
  const fs::path sft = config.output_dir / "sft", reward = config.output_dir / "reward",
                 ppo = config.output_dir / "ppo";
  EXPECT_EQ(from(sft, "actor"), tiny.model().string());
  EXPECT_EQ(from(reward, "reward model"), (sft / "model").string());
  EXPECT_EQ(from(ppo, "actor"), (sft / "model").string());
  EXPECT_EQ(from(ppo, "reference"), (sft / "model").string());
  EXPECT_EQ(from(ppo, "critic"), (reward / "model").string());
  EXPECT_EQ(from(ppo, "reward model"), (reward / "model").string());
  // What was not moved is what it began with.
  EXPECT_TRUE(weights_of(ppo / "model") == weights_of(sft / "model"));
  EXPECT_TRUE(weights_of(ppo / "critic") == weights_of(reward / "model"));
  EXPECT_FALSE(weights_of(sft / "model") == weights_of(sft / "ema")) << "the actor is no average";
  for (const auto& step : steps_of(ppo)) EXPECT_EQ(step.at("kl"), 0) << "the reference is the actor before training";
}

TEST_F(Runs, TheReferenceIsTheActorBeforeTraining) {
  const RunConfig config = tiny.config(kThree);
  ASSERT_TRUE(run(config));
  const auto steps = steps_of(config.output_dir / "ppo");
  EXPECT_EQ(steps.at(0).at("kl"), 0);
  EXPECT_NE(steps.at(1).at("kl"), 0);
  EXPECT_FALSE(weights_of(config.output_dir / "ppo/model") == weights_of(config.output_dir / "sft/model"));
}

TEST_F(Runs, AStageTakesTheModelsThatItNames) {
  const std::string stages = std::string(kSftStage) + R"(
[[stage]]
name = "again"
algorithm = "sft"
learning_rate = 0
actor = { from = "FIRST" }
data.sources = [{ path = "sft.jsonl" }]
[[stage]]
name = "dpo"
algorithm = "dpo"
learning_rate = 0
reference = { from = "sft" }
data.sources = [{ path = "pairs.jsonl" }]
)";
  const fs::path first = tiny.path() / "first/sft/model";
  ASSERT_TRUE(run(tiny.config(kSftStage, {tiny.elsewhere("first")})));
  const RunConfig config =
      tiny.config(std::string(stages).replace(stages.find("FIRST"), 5, first.string()), {"stage.sft.max_steps=1"});
  ASSERT_TRUE(run(config));
  EXPECT_TRUE(weights_of(config.output_dir / "again/model") == weights_of(first)) << "a directory";
  EXPECT_EQ(from(config.output_dir / "dpo", "actor"), (config.output_dir / "again/model").string());
  EXPECT_EQ(from(config.output_dir / "dpo", "reference"), (config.output_dir / "sft/model").string());
}

TEST_F(Runs, WhatNobodyMadeIsRefusedBeforeAnythingIsWritten) {
  const RunConfig config = tiny.config(kThree, {"stage.ppo.critic.from=nobody"});
  EXPECT_THAT(error(config), AllOf(HasSubstr("stage 'ppo' takes a model from '"),
                                   HasSubstr("/nobody', which is neither an earlier stage nor a directory")));
  EXPECT_THAT(error(tiny.config(kPpoStage)), HasSubstr("the reward 'model' needs a reward model"));
  EXPECT_FALSE(fs::exists(config.output_dir));
}

TEST_F(Runs, WhatIsDoneIsNotRunAgain) {
  const RunConfig config = tiny.config(kThree);
  ASSERT_TRUE(run(config, "", "reward"));
  EXPECT_FALSE(fs::exists(config.output_dir / "ppo")) << "run_until ends with its stage";
  const std::string log = read_text(config.output_dir / "sft/metrics.jsonl");  // its times would be others
  ASSERT_TRUE(run(config));
  EXPECT_EQ(already_done, 2);
  ASSERT_TRUE(run(config));
  EXPECT_EQ(already_done, 3);
  EXPECT_EQ(read_text(config.output_dir / "sft/metrics.jsonl"), log);
}

TEST_F(Runs, AnOutputThatWasChangedIsRefused) {
  const RunConfig config = tiny.config(kThree);
  ASSERT_TRUE(run(config, "", "reward"));
  const fs::path file = config.output_dir / "sft/model/model.safetensors";
  std::string bytes = read_text(file);
  bytes.back() = char(bytes.back() ^ 1);
  write_text(file, bytes);
  EXPECT_THAT(error(config), AllOf(HasSubstr(file.string() + " has changed"), HasSubstr("--accept-changes")));
}

// Between two stages nothing is half done: the next run begins with the later one.
TEST_F(Runs, AStopBetweenStagesIsGoneOnFrom) {
  const RunConfig whole = tiny.config(kThree, {tiny.elsewhere("whole")}), config = tiny.config(kThree);
  ASSERT_TRUE(run(whole));
  EXPECT_FALSE(run(config, "saved directory=" + (config.output_dir / "reward/model").string()));
  EXPECT_TRUE(fs::exists(config.output_dir / "reward/done.json"));
  EXPECT_FALSE(fs::exists(config.output_dir / "ppo"));
  EXPECT_TRUE(run(config));
  EXPECT_EQ(already_done, 2);
  EXPECT_TRUE(weights_of(config.output_dir / "ppo/model") == weights_of(whole.output_dir / "ppo/model"));
  EXPECT_EQ(steps_of(config.output_dir / "ppo"), steps_of(whole.output_dir / "ppo"));
}

TEST_F(Runs, AnInputThatWasChangedIsRefusedByName) {
  const RunConfig config = tiny.config(kThree);
  EXPECT_FALSE(run(config, "\"stage\":\"ppo\",\"step\":1,"));
  const std::string prompts = read_text(tiny.path() / "prompts.jsonl");
  write_text(tiny.path() / "prompts.jsonl", prompts + "{\"prompt\": \"One more?\"}\n");
  EXPECT_THAT(error(config), AllOf(HasSubstr("ppo was begun with another records"), HasSubstr("prompts.jsonl")));
  write_text(tiny.path() / "prompts.jsonl", prompts);
  EXPECT_TRUE(run(config)) << "what was there is back";
}

TEST_F(Runs, AStageThatIsDoneIsMadeLonger) {
  const RunConfig whole = tiny.config(kSftStage, {"max_steps=3", tiny.elsewhere("whole")});
  ASSERT_TRUE(run(whole));
  ASSERT_TRUE(run(tiny.config(kSftStage)));
  const RunConfig longer = tiny.config(kSftStage, {"max_steps=3"});
  ASSERT_TRUE(run(longer));
  EXPECT_EQ(already_done, 0);
  EXPECT_TRUE(weights_of(longer.output_dir / "sft/model") == weights_of(whole.output_dir / "sft/model"));
  EXPECT_THAT(error(tiny.config(kSftStage, {"max_steps=1"})), HasSubstr("has 3 steps already, its settings ask for 1"));
}

struct SelectAlgorithm : Runs {
  RunConfig selected;
  std::string select(const std::string& algorithm, const std::vector<std::string>& sets = {},
                     const std::string& stages = kThree) {
    selected = tiny.config(stages, sets);
    const LogWatch log;
    return select_algorithm(selected, built_plugins(), algorithm);
  }
};

TEST_F(SelectAlgorithm, AStageThatHasItIsItAndNothingChanges) {
  const std::string renamed = std::string(kThree).replace(kThree.find("name = \"reward\""), 15, "name = \"judge\"");
  EXPECT_EQ(select("reward", {}, renamed), "judge");
  EXPECT_EQ(selected.stages.size(), 3u);
  EXPECT_EQ(selected.resolved, tiny.config(renamed).resolved);
}

TEST_F(SelectAlgorithm, TheLastStageOfItsSourceGivesItsPlace) {
  EXPECT_EQ(select("dpo", {"plugin.dpo.beta=0.3"}), "dpo");
  ASSERT_EQ(selected.stages.size(), 2u) << "what came after is left out";
  EXPECT_EQ(selected.stages[0].name, "sft");
  EXPECT_EQ(selected.stages[1].name, "dpo");
  EXPECT_EQ(selected.stages[1].algorithm, "dpo");
  EXPECT_EQ(std::get<double>(selected.stages[1].plugin.at("dpo").at("beta").value), 0.3);
  EXPECT_TRUE(selected.stages[0].plugin.empty());
  EXPECT_THAT(selected.resolved, AllOf(HasSubstr("algorithm = \"dpo\""), HasSubstr("beta = 0.3")));
  EXPECT_EQ(selected.resolved.find("algorithm = \"ppo\""), std::string::npos);

  EXPECT_EQ(select("rloo"), "rloo");
  ASSERT_EQ(selected.stages.size(), 3u);
  EXPECT_EQ(selected.stages[2].algorithm, "rloo");
  EXPECT_TRUE(selected.stages[2].plugin.empty()) << "ppo's options are not its";
}

TEST_F(SelectAlgorithm, WhereNoStageReadsWhatItReadsItIsRefused) {
  EXPECT_THAT(error_of([&] { select("ppo", {}, kSftStage); }),
              HasSubstr("no stage of the configuration can run the algorithm 'ppo'"));
  EXPECT_THAT(error_of([&] { select("pppo"); }), HasSubstr("pppo"));
}

}  // namespace
}  // namespace dsengine

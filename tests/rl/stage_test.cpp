// A stage in one go beside the same stage stopped, made longer, or left by a reward: the bits of what it leaves, and
// the lines of its logs but for times and memory.
#include "rl/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rl/pipeline.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// A critic that is drawn like the actor, and a reward that needs no model; kl_coef is the algorithm's own state.
const std::string kPpo = std::string(kPpoStage) + R"(
ema_decay = 0.8
plugin.ppo = { kl_target = 0.01, kl_horizon = 8 }
reward = { plugin = "match", kind = "regex", pattern = "[a-m]" }
)";

struct Stages : testing::Test {
  // The first stage of `config`, on the model that is drawn. A stop is asked for once the log holds `stop_at`.
  StageEnd run(const RunConfig& config, const std::string& stop_at = "", Changes changes = Changes::refused) const {
    const LogWatch log(stop_at);
    const StopSignal stop;
    const fs::path model = tiny.model();
    const StageInputs inputs{.models = {{DSE_ACTOR, model}, {DSE_REFERENCE, model}, {DSE_CRITIC, model}},
                             .rewards = {fs::path()},
                             .drawn = {model},
                             .tokenizer = model};
    const RunDirectory folder(config, changes);
    const StageDirectory stage = folder.open_stage(config, config.stages[0]);
    return StageRunner(config, config.stages[0], inputs, {built_plugins(), built_kernels(), stop}, stage).run();
  }
  static std::vector<std::string> checkpoints(const fs::path& stage) {
    std::vector<std::string> names;
    if (fs::exists(stage / "checkpoints"))
      for (const auto& entry : fs::directory_iterator(stage / "checkpoints")) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  static void expect_same(const fs::path& stage, const fs::path& whole, const std::vector<std::string>& models) {
    for (const auto& model : models) EXPECT_TRUE(weights_of(stage / model) == weights_of(whole / model)) << model;
    EXPECT_EQ(steps_of(stage), steps_of(whole));
    EXPECT_EQ(lines_of(stage / "eval.jsonl"), lines_of(whole / "eval.jsonl"));
  }

  TinyRun tiny;
};

struct Kind {
  std::string name, stage;
  std::vector<std::string> models;
};
std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.name; }
class StoppedStage : public Stages, public testing::WithParamInterface<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, StoppedStage,
                         testing::Values(Kind{"sft", kSftStage, {"model", "ema"}},
                                         Kind{"ppo", kPpo, {"model", "ema", "critic", "critic_ema"}}),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(StoppedStage, GoesOnAsIfItHadNotBeen) {
  const Kind& kind = GetParam();
  const RunConfig whole = tiny.config(kind.stage, {"max_steps=4", tiny.elsewhere("whole")}),
                  parts = tiny.config(kind.stage, {"max_steps=4"});
  const fs::path one = whole.output_dir / kind.name, other = parts.output_dir / kind.name;
  ASSERT_EQ(run(whole), StageEnd::finished);
  const auto steps = steps_of(one);
  ASSERT_THAT(steps, SizeIs(4));
  EXPECT_THAT(lines_of(one / "eval.jsonl"), SizeIs(5)) << "the first comes before any step";
  EXPECT_NE(steps[2].at("loss"), steps[3].at("loss"));
  EXPECT_FALSE(weights_of(one / "model") == weights_of(one / "ema")) << "the average is another";
  if (kind.name == "ppo") {
    EXPECT_NE(steps[2].at("kl_coef"), steps[3].at("kl_coef")) << "the state is another";
  }

  EXPECT_EQ(run(parts, "\"step\":2,"), StageEnd::stopped);  // after the second step's evaluation
  EXPECT_THAT(steps_of(other), SizeIs(2));
  EXPECT_THAT(checkpoints(other), ElementsAre("step-00000002"));
  EXPECT_FALSE(fs::exists(other / "model"));
  EXPECT_FALSE(fs::exists(other / "done.json"));
  EXPECT_EQ(run(parts), StageEnd::finished);
  expect_same(other, one, kind.models);
}

// Lines of steps behind the checkpoint, whose process ended before the next one, are made again.
TEST_F(Stages, MetricsBehindTheCheckpointAreCutOff) {
  const RunConfig whole = tiny.config(kSftStage, {"max_steps=3", tiny.elsewhere("whole")}),
                  parts = tiny.config(kSftStage, {"max_steps=3"});
  run(whole);
  EXPECT_EQ(run(parts, "\"step\":1,"), StageEnd::stopped);
  std::ofstream(parts.output_dir / "sft/metrics.jsonl", std::ios::app) << "{\"stage\":\"sft\",\"step\":2,\"lo";
  EXPECT_EQ(run(parts), StageEnd::finished);
  expect_same(parts.output_dir / "sft", whole.output_dir / "sft", {"model"});
}

TEST_F(Stages, AStopBeforeTheFirstStepLeavesNothingBehind) {
  const RunConfig config = tiny.config(kSftStage);
  EXPECT_EQ(run(config, "role name=actor"), StageEnd::stopped);
  EXPECT_FALSE(fs::exists(config.output_dir / "sft/metrics.jsonl"));
  EXPECT_THAT(checkpoints(config.output_dir / "sft"), IsEmpty());
}

TEST_F(Stages, OneThatIsMadeLongerIsTheLongerOne) {
  const RunConfig longer = tiny.config(kSftStage, {"max_steps=5", tiny.elsewhere("whole")});
  run(longer);
  EXPECT_EQ(run(tiny.config(kSftStage, {"max_steps=3"})), StageEnd::finished);
  const RunConfig grown = tiny.config(kSftStage, {"max_steps=5"});
  EXPECT_EQ(run(grown), StageEnd::finished);
  expect_same(grown.output_dir / "sft", longer.output_dir / "sft", {"model", "ema"});
  EXPECT_THAT(error_of([&] { run(tiny.config(kSftStage, {"max_steps=4"})); }),
              HasSubstr("stage 'sft' has 5 steps already, its settings ask for 4"));
}

// A schedule depends on the length. An epoch's last step takes what is left of it, which is less than 7; a step of so
// many steps goes on into the next epoch.
TEST_F(Stages, AnotherBeginningIsRefusedToALongerOne) {
  const auto refused = [&](const std::vector<std::string>& first, const std::vector<std::string>& then) {
    fs::remove_all(tiny.path() / "run");
    run(tiny.config(kSftStage, first));
    const RunConfig config = tiny.config(kSftStage, then);
    const std::string error = error_of([&] { run(config); });
    EXPECT_EQ(run(config, "", Changes::accepted), StageEnd::finished);
    return error;
  };
  EXPECT_THAT(refused({"max_steps=2", "schedule=cosine"}, {"max_steps=3", "schedule=cosine"}),
              AllOf(HasSubstr("the first 2 steps of stage 'sft' followed a learning rate's schedule"),
                    HasSubstr("over 2 steps, now it has 3")));
  EXPECT_THAT(refused({"max_steps=0", "epochs=1", "mini_batch_size=7"}, {"max_steps=9", "mini_batch_size=7"}),
              HasSubstr("steps of stage 'sft' took other records, as epochs cut them,"));
}

TEST_F(Stages, CheckpointsComeWhereTheyAreAskedFor) {
  const RunConfig config = tiny.config(kSftStage, {"max_steps=5", "checkpoint_every=2", "keep_checkpoints=3"});
  run(config);
  EXPECT_THAT(checkpoints(config.output_dir / "sft"), ElementsAre("step-00000002", "step-00000004", "step-00000005"));
}

// One prompt of twelve has no field to compare with: its step ends the run, and those before it stand.
TEST_F(Stages, ARewardThatFailsLeavesTheFinishedSteps) {
  std::string lines;
  for (int i = 0; i < 12; ++i)
    lines += fmt::format("{{\"prompt\": \"Question {}?\"{}}}\n", i, i == 5 ? "" : ", \"answer\": \"Yes\"");
  write_text(tiny.path() / "prompts.jsonl", lines);
  const RunConfig config =
      tiny.config(std::string(kPpoStage) + "reward = { plugin = \"match\", kind = \"exact\" }",
                  {"max_steps=6", "rollout.batch_size=2", "mini_batch_size=2", "data.heldout_fraction=0"});
  const auto error = [&] { return error_of([&] { run(config); }); };
  const std::string first = error();
  EXPECT_THAT(first, AllOf(HasSubstr("a record has no field 'answer'"), HasSubstr("Question 5?")));
  const auto steps = steps_of(config.output_dir / "ppo");
  ASSERT_GT(steps.size(), 0u);
  ASSERT_LT(steps.size(), 6u);
  EXPECT_THAT(checkpoints(config.output_dir / "ppo"), ElementsAre(fmt::format("step-{:08}", steps.size())));
  EXPECT_EQ(error(), first);
  EXPECT_EQ(steps_of(config.output_dir / "ppo"), steps);
}

// Codes, scales and rounded numbers go through a checkpoint as they are.
TEST(Stage, MomentsInFewerBitsGoOnToTheSameBits) {
  for (const char* moments : {"bf16", "8bit"}) {
    const TinyRun tiny;
    const auto run = [&](const char* folder, int steps) {
      const LogWatch log;
      const StopSignal stop;
      const RunConfig config = tiny.config(
          kSftStage, {tiny.elsewhere(folder), std::string("moments=") + moments, "max_steps=" + std::to_string(steps)});
      EXPECT_TRUE(Pipeline(config, built_plugins(), built_kernels(), stop).run_all());
      return weights_of(config.output_dir / "sft" / "model");
    };
    const auto whole = run("whole", 4), begun = run("resumed", 2), resumed = run("resumed", 4);
    EXPECT_TRUE(whole == resumed) << moments;
    EXPECT_FALSE(begun == resumed) << moments;
  }
}

}  // namespace
}  // namespace dsengine

// Where a step's rows come from: a plan's records in the stream's order, and rollouts that are recorded and replayed
// while held-out prompts are answered anew.
#include "rl/experience_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rl/pipeline.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

TEST(RecordSource, RowsAreThePlansRecordsInTheStreamsOrder) {
  const LogWatch log;
  const TinyRun tiny;
  const TextModel text = TextModel::load(tiny.model(), tiny.model());
  const RunConfig config = tiny.config(kRewardStage);
  const auto data = StageData::load(config.stages[0], DSE_SOURCE_PAIRS, built_plugins(), text, 5);
  const Item& item = built_plugins().find(DSE_ALGORITHM, "reward");
  AlgorithmInstance algorithm(item, OptionSet(item, {}));
  Roles roles;
  Phases phases;
  LocalCommunicator alone;
  Learner learner(algorithm, roles, {.mini_batch_size = 4, .micro_batch_size = 4}, phases, alone);
  RecordSource source(config.stages[0], data, 5, 6, 2, algorithm, learner);
  const StepPlan plan(data.records, 5, 6, 2, {.max_steps = 0, .epochs = 2});
  MetricMeans means;
  for (const int64_t step : {int64_t{0}, plan.steps() - 1, int64_t{1}}) {  // whenever asked
    const Experience rows = source.next(step, plan[step], means);
    ASSERT_EQ(rows.row_count(), 2 * plan[step].count);
    for (int64_t i = 0; i < plan[step].count; ++i) {
      const auto n = plan[step].first + uint64_t(i), size = uint64_t(data.records.size());
      const Example& e = data.records[epoch_order(data.records, 5, 6, n / size)[n % size]];
      for (const int64_t side : {0, 1}) {
        std::vector<TokenId> expected = e.prompt;
        const auto& answer = side == 0 ? e.answer.tokens : e.rejected.tokens;
        expected.insert(expected.end(), answer.begin(), answer.end());
        EXPECT_EQ(rows.rows[size_t(2 * i + side)]->tokens, expected);
        EXPECT_EQ(rows.prompt[size_t(2 * i + side)], rows.prompt[size_t(2 * i)]);
      }
    }
  }
}

// A replay takes the place of the training prompts' answers alone. Its evaluations answer with one sample a prompt, by
// the weights that there are, and are not recorded.
TEST(RolloutSource, AReplayIsTheRunThatWasRecorded) {
  const TinyRun tiny;
  const std::string stage =
      std::string(kPpoStage) + "reward = { plugin = \"match\", kind = \"regex\", pattern = \"[a-m]\" }\n";
  const auto run = [&](const std::vector<std::string>& sets) {
    const LogWatch log;
    const StopSignal stop;
    const RunConfig config = tiny.config(stage, sets);
    EXPECT_TRUE(Pipeline(config, built_plugins(), built_kernels(), stop).run_all());
    return config.output_dir / "ppo";
  };
  const std::string folder = (tiny.path() / "recorded").string();
  const fs::path made = run({"rollout.samples_per_prompt=2", "rollout.record=" + folder}),
                 replayed = run({"rollout.samples_per_prompt=2", "rollout.replay=" + folder, tiny.elsewhere("again")});
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_THAT(names, ElementsAre("step-00000000.json", "step-00000001.json"));
  for (const auto& name : names) EXPECT_EQ(read_json(fs::path(folder) / name).size(), 8u) << "no held-out prompt's";
  EXPECT_TRUE(weights_of(replayed / "model") == weights_of(made / "model"));
  EXPECT_EQ(steps_of(replayed), steps_of(made));
  const auto evaluations = lines_of(made / "eval.jsonl");
  EXPECT_EQ(lines_of(replayed / "eval.jsonl"), evaluations);
  ASSERT_EQ(evaluations.size(), 3u);
  EXPECT_NE(evaluations[0].at("samples"), evaluations[2].at("samples")) << "the weights are others";
}

}  // namespace
}  // namespace dsengine

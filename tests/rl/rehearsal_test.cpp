// A rehearsal beside the steps that it stands for: what the ledger has of a real run's steps at most, phase by phase
// and tag by tag. Both are the same code, so that what a run holds is what was foretold of it, to the byte where its
// rows are known.
#include "rl/rehearsal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/counting_allocator.h"
#include "rl/config_checks.h"
#include "rl/input_resolver.h"
#include "rl/pipeline.h"
#include "rl/plan_search.h"
#include "rl/tiny_run.h"

namespace dsengine {
namespace {

StagePlan plan_of(const RunConfig& config, size_t index) {
  const StopSignal stop;
  InputCheck check(config, built_plugins(), stop);
  const InputResolver models(config, built_plugins());
  for (size_t i = 0; i <= index; ++i) check.stage(i, needs_of(built_plugins(), config.stages[i]), models.inputs_of(i));
  return check.plan(config.stages[index]);
}

// The most of each number that a stage's steps tell.
std::map<std::string, double> most_of(const RunConfig& config, const std::string& stage) {
  count_host_memory();
  const LogWatch log;
  const StopSignal stop;
  EXPECT_TRUE(Pipeline(config, built_plugins(), built_kernels(), stop).run_all());
  std::map<std::string, double> most;
  std::ifstream in(config.output_dir / stage / "metrics.jsonl");
  for (std::string text; std::getline(in, text);) {
    const Json line = parse_json(text, stage);
    for (const auto& [key, value] : line.items())
      if (value.is_number()) most[key] = std::max(most[key], value.get<double>());
  }
  return most;
}

double mib(int64_t bytes) { return double(bytes) / (1 << 20); }
double train_peak(const StagePlan& plan) {
  return mib(std::max(plan.at(Phase::actor).bytes, plan.at(Phase::critic).bytes));
}
// In a step; what is saved at the end is no part of it.
int64_t most(const StagePlan& plan, MemoryTag tag) {
  int64_t bytes = 0;
  for (const auto& phase : plan.phases)
    if (phase.name != "other" && phase.name != "evaluation") bytes = std::max(bytes, phase.of(tag));
  return bytes;
}

// The plan has a tag's bytes at the moment when all are most: of what comes and goes that is at most the tag's own
// most.
void expect_most(const StagePlan& plan, MemoryTag tag, const std::map<std::string, double>& real) {
  const double planned = mib(most(plan, tag)), taken = real.at(fmt::format("memory_{}_mb", name_of(tag)));
  if (plan.movement.moved + plan.movement.unpacked > 0)
    EXPECT_LE(planned, taken) << name_of(tag);
  else
    EXPECT_DOUBLE_EQ(planned, taken) << name_of(tag);
}

class RehearsalOf : public testing::TestWithParam<std::vector<std::string>> {};
INSTANTIATE_TEST_SUITE_P(
    Variants, RehearsalOf,
    testing::Values(std::vector<std::string>{}, std::vector<std::string>{"recompute=true"},
                    std::vector<std::string>{"micro_batch_size=2"}, std::vector<std::string>{"lora.rank=4"},
                    std::vector<std::string>{"moments=8bit"}, std::vector<std::string>{"moments=bf16", "ema_decay=0.9"},
                    std::vector<std::string>{"lora.rank=4", "lora.base=nf4"},
                    std::vector<std::string>{"lora.rank=4", "offload.frozen=true", "offload.moments=true",
                                             "offload.average=true", "ema_decay=0.9"},
                    std::vector<std::string>{"offload.moments=true", "offload.gradients=true", "moments=bf16",
                                             "micro_batch_size=2"},
                    std::vector<std::string>{"offload.moments=true", "offload.gradients=true", "offload.weights=true",
                                             "offload.average=true", "ema_decay=0.9", "recompute=true"}));

TEST_P(RehearsalOf, TrainingTakesWhatWasForetold) {
  const TinyRun tiny;
  for (const auto& [name, text] : {std::pair{"sft", kSftStage}, {"reward", kRewardStage}}) {
    auto sets = GetParam();
    sets.push_back(tiny.elsewhere(name));
    const RunConfig config = tiny.config(text, sets);
    const StagePlan plan = plan_of(config, 0);
    const auto real = most_of(config, name);
    for (const auto tag : {MemoryTag::weights, MemoryTag::gradients, MemoryTag::moments, MemoryTag::average})
      expect_most(plan, tag, real);
    const auto told = [&](const char* metric) { return real.contains(metric) ? real.at(metric) : 0.0; };
    EXPECT_DOUBLE_EQ(mib(plan.offloaded), told("memory_offloaded_mb"));
    EXPECT_DOUBLE_EQ(plan.movement.moved / (1 << 20), told("moved_mb"));
    // The host's ledger has what tests before this one left, some bytes.
    EXPECT_NEAR(train_peak(plan), real.at("memory_peak_train_mb"), 0.02 * train_peak(plan)) << name;
  }
}

class RolloutRehearsalOf : public testing::TestWithParam<std::vector<std::string>> {};
INSTANTIATE_TEST_SUITE_P(
    Variants, RolloutRehearsalOf,
    testing::Values(
        std::vector<std::string>{}, std::vector<std::string>{"stage.ppo.rollout.weights=int8"},
        std::vector<std::string>{"stage.ppo.rollout.slots=2", "stage.ppo.micro_batch_size=2"},
        std::vector<std::string>{"stage.ppo.lora.rank=4", "stage.ppo.rollout.samples_per_prompt=2"},
        std::vector<std::string>{"stage.ppo.lora.rank=4", "stage.ppo.lora.base=nf4", "offload.frozen=true"},
        std::vector<std::string>{"stage.ppo.lora.rank=4", "stage.ppo.lora.base=nf4", "stage.ppo.rollout.weights=int8"},
        std::vector<std::string>{"offload.frozen=true", "offload.moments=true", "offload.gradients=true",
                                 "stage.ppo.rollout.weights=bf16"},
        std::vector<std::string>{"offload.frozen=true", "offload.moments=true", "offload.gradients=true",
                                 "offload.average=true", "offload.weights=true", "stage.ppo.rollout.keep_cache=true"},
        std::vector<std::string>{"offload.moments=true", "offload.gradients=true", "offload.average=true",
                                 "offload.weights=true", "stage.ppo.rollout.weights=int8"},
        std::vector<std::string>{"stage.ppo.rollout.keep_cache=true", "stage.ppo.rollout.batch_size=1", "eval_rows=12",
                                 "stage.ppo.mini_batch_size=1"}));

// Answers may end early, so that a run takes no more than was foretold, and little less.
TEST_P(RolloutRehearsalOf, ARolloutTakesAtMostWhatWasForetold) {
  const TinyRun tiny;
  const std::string stages = std::string(kSftStage) + kRewardStage + kPpoStage;
  const RunConfig config = tiny.config(stages, GetParam());
  const StagePlan plan = plan_of(config, 2);
  const auto real = most_of(config, "ppo");
  for (const auto tag : {MemoryTag::weights, MemoryTag::gradients, MemoryTag::moments, MemoryTag::rollout_weights})
    expect_most(plan, tag, real);
  const auto told = [&](const char* metric) { return real.contains(metric) ? real.at(metric) : 0.0; };
  EXPECT_DOUBLE_EQ(mib(plan.offloaded), told("memory_offloaded_mb"));
  EXPECT_LE(told("moved_mb"), plan.movement.moved / (1 << 20));
  EXPECT_GE(told("moved_mb"), 0.5 * plan.movement.moved / (1 << 20))
      << "answers ended far earlier, or an evaluation counts";
  for (const auto& [planned, name] : {std::pair{mib(plan.at(Phase::generate).bytes), "memory_peak_generate_mb"},
                                      {mib(plan.at(Phase::score).bytes), "memory_peak_score_mb"},
                                      {train_peak(plan), "memory_peak_train_mb"}}) {
    EXPECT_LE(real.at(name), 1.01 * planned) << name;
    EXPECT_GE(real.at(name), 0.75 * planned) << name;
  }
}

// Of a stage that is to be, the shapes of its models are those of what they are made from.
TEST(Rehearsal, GoesThroughStagesWhoseModelsAreStillToBeMade) {
  const TinyRun tiny;
  const RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage + kPpoStage, {"lora.rank=4"});
  const StagePlan plan = plan_of(config, 2);
  EXPECT_EQ(plan.steps, 2);
  EXPECT_GT(plan.held, 0);
  EXPECT_EQ(plan.peak(), plan.largest().bytes);
  EXPECT_EQ(Ledger::meta().now(), 0) << "nothing is left of it";
}

// Prompts of three forwards' tokens: the first answers end before the last begin, and all slots are never taken.
TEST(Rehearsal, EndsWhereAnswersAreShorterThanTheirPromptsEntering) {
  const TinyRun tiny;
  for (const char* length : {"1", "2"}) {
    const RunConfig config = tiny.config(std::string(kSftStage) + kRewardStage + kPpoStage,
                                         {"stage.ppo.rollout.batch_size=1200", "stage.ppo.mini_batch_size=600",
                                          std::string("stage.ppo.rollout.max_response_length=") + length});
    EXPECT_GT(plan_of(config, 2).at(Phase::generate).bytes, 0);
  }
}

// One long record among short ones: the step that has it sets the peak where micro-batches are small.
TEST(Rehearsal, SeesTheLongestRecord) {
  const TinyRun tiny;
  std::string lines;
  for (int i = 0; i < 23; ++i)
    lines += i == 11 ? R"({"prompt": "a", "completion": "b b b b b b b b b b b b b b b b b b b b b b b b b b b b b b"})"
                       "\n"
                     : fmt::format(R"({{"prompt": "What is {}?", "completion": "It is {} of them."}})", i, i) + "\n";
  write_text(tiny.path() / "sft.jsonl", lines);
  const RunConfig config = tiny.config(kSftStage, {"micro_batch_size=1", "max_steps=0", "epochs=1"});
  const StagePlan plan = plan_of(config, 0);
  EXPECT_NEAR(train_peak(plan), most_of(config, "sft").at("memory_peak_train_mb"), 0.02 * train_peak(plan));
}

// An adapter gets no second one: a saving that a stage cannot take is left out.
TEST(PlanSearch, AnAdapterIsTrainedOn) {
  const TinyRun tiny;
  const auto from = [](const RunConfig& run, const char* folder) {
    return "model.actor=" + (run.output_dir / "sft" / folder).string();
  };
  const RunConfig base = tiny.config(kSftStage);
  most_of(base, "sft");
  const RunConfig made =
      tiny.config(kSftStage, {tiny.elsewhere("made"), "model.init=pretrained", from(base, "model"), "lora.rank=4"});
  most_of(made, "sft");
  const RunConfig config =
      tiny.config(kSftStage, {tiny.elsewhere("again"), "model.init=pretrained", from(made, "adapter")});
  const StopSignal stop;
  InputCheck check(config, built_plugins(), stop);
  check.stage(0, needs_of(built_plugins(), config.stages[0]), InputResolver(config, built_plugins()).inputs_of(0));
  const auto found = savings(check, config.stages[0], check.plan(config.stages[0]));
  EXPECT_FALSE(found.empty());
  for (const auto& saving : found) EXPECT_EQ(saving.settings.find("lora"), std::string::npos);
}

TEST(PlanSearch, WhatIsSaidToFitFits) {
  const TinyRun tiny;
  const RunConfig config = tiny.config(kSftStage);
  const StopSignal stop;
  InputCheck check(config, built_plugins(), stop);
  check.stage(0, needs_of(built_plugins(), config.stages[0]), InputResolver(config, built_plugins()).inputs_of(0));
  const StageConfig& stage = config.stages[0];
  const StagePlan whole = check.plan(stage);
  const auto fits = way_to_fit(check, stage, whole, whole.peak());
  ASSERT_TRUE(fits);
  EXPECT_EQ(fits->settings, "");
  const int64_t tight = (whole.peak() + whole.held) / 2;
  const auto way = way_to_fit(check, stage, whole, tight);
  ASSERT_TRUE(way);
  EXPECT_LE(check.plan(way->stage).peak(), tight);
  EXPECT_THAT(too_large(whole, tight, way), testing::AllOf(testing::HasSubstr("stage 'sft' would need"),
                                                           testing::HasSubstr("it fits with " + way->settings)));
  EXPECT_FALSE(way_to_fit(check, stage, whole, 1000));
  for (const auto& saving : savings(check, stage, whole))
    EXPECT_LE(saving.plan.peak(), whole.peak()) << saving.settings;
}

}  // namespace
}  // namespace dsengine

// A step's experience from rollouts: prompts, answers, scores; failed items dropped, groups kept whole, and with
// dynamic sampling groups that say nothing replaced by other prompts'.
//
//   Collector collector(stage.rollout, needs.group_size, data, seed, key);
//   Experience e = collector.collect(step, plan[step], rollout, scorer, phases, means);
//
// What a step reads depends on the seed, the step and its items alone.
#pragma once
#include "memory/phases.h"
#include "rl/example_stream.h"
#include "rl/metric_means.h"
#include "rl/rollout.h"
#include "rl/scorer.h"

namespace dsengine {

class Collector {
 public:
  // group_size: how many answers to a prompt the algorithm compares at least.
  Collector(const RolloutConfig& config, int64_t group_size, const ExampleSet& data, uint64_t seed, uint64_t stage_key);

  // items: the step's prompts. scorer null: every score is 0. Adds reward, response_length, eos_fraction, reward_failed
  // and each reward's mean to `means`; with dynamic sampling groups_replaced too.
  Experience collect(int64_t step, const StepPlan::Items& items, const Rollout& rollout, Scorer* scorer, Phases& phases,
                     MetricMeans& means);

 private:
  struct Round {
    std::vector<Answered> answers;
    std::vector<AnswerScore> scores;
    int64_t failed = 0;  // scores that are none
  };
  Round answer(ExampleStream& stream, uint64_t first, int64_t count, int64_t first_id, uint64_t draws,
               const Rollout& rollout, Scorer* scorer, Phases& phases);

  const RolloutConfig& config_;
  int64_t group_size_;
  ExampleStream prompts_, replacements_;
};

}  // namespace dsengine

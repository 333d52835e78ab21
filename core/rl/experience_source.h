// Where a step's rows come from, and what held-out data says of the models: records and pairs as they are read, or
// prompts that the actor answers and a reward judges.
//
//   std::unique_ptr<ExperienceSource> source = std::make_unique<RecordSource>(…);
//   Experience e = source->next(step, plan[step], means);
#pragma once
#include <memory>
#include <optional>

#include "memory/phases.h"
#include "rl/collector.h"
#include "rl/evaluation.h"
#include "rl/generation_memory.h"
#include "rl/stage_data.h"
#include "rl/stage_models.h"

namespace dsengine {

class ExperienceSource {
 public:
  virtual ~ExperienceSource() = default;
  // What a step reads depends on the seed, the step and its items alone.
  virtual Experience next(int64_t step, const StepPlan::Items& items, MetricMeans& means) = 0;
  // The fields of a line of eval.jsonl. There are held-out records.
  virtual Json evaluate() = 0;
  // Of the calls of rewards.
  virtual void set_watch(const CallWatch::Rules&) {}
};

class RecordSource : public ExperienceSource {
 public:
  // items_per_step: of an evaluation's, too. All are borrowed.
  RecordSource(const StageConfig& stage, const StageData& data, uint64_t seed, uint64_t key, int64_t items_per_step,
               AlgorithmInstance& algorithm, Learner& learner);
  Experience next(int64_t step, const StepPlan::Items& items, MetricMeans& means) override;
  Json evaluate() override;

 private:
  const StageConfig& stage_;
  const StageData& data_;
  ExampleStream stream_;
  int64_t items_per_step_;
  AlgorithmInstance& algorithm_;
  Learner& learner_;
};

class RolloutSource : public ExperienceSource {
 public:
  // The actor generates in phases' generate, and gives its memory for that back at the end. All are borrowed.
  RolloutSource(const StageConfig& stage, const StageData& data, uint64_t seed, uint64_t key, const dse_needs& needs,
                StageModels& models, const PluginRegistry& registry, const TextModel& text, Phases& phases,
                Communicator& ranks);
  Experience next(int64_t step, const StepPlan::Items& items, MetricMeans& means) override;
  Json evaluate() override;
  void set_watch(const CallWatch::Rules& watch) override;

 private:
  Scorer* scorer() { return scorer_ ? &*scorer_ : nullptr; }

  const StageConfig& stage_;
  const StageData& data_;
  Phases& phases_;
  const RolloutConfig evaluated_;  // how held-out prompts are answered
  Scheduler scheduler_;
  GenerationMemory memory_;
  Collector collector_;
  std::optional<Scorer> scorer_;  // none: the algorithm wants no reward
  const Rollout rollout_, heldout_;
};

}  // namespace dsengine

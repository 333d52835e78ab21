#include "rl/experience_source.h"

#include <spdlog/spdlog.h>

#include "base/philox.h"

namespace dsengine {

namespace {

RolloutConfig evaluated(RolloutConfig config) {
  config.samples_per_prompt = 1, config.record.clear(), config.replay.clear();
  return config;
}

}  // namespace

RecordSource::RecordSource(const StageConfig& stage, const StageData& data, uint64_t seed, uint64_t key,
                           int64_t items_per_step, AlgorithmInstance& algorithm, Learner& learner)
    : stage_(stage),
      data_(data),
      stream_(data.records, seed, key),
      items_per_step_(items_per_step),
      algorithm_(algorithm),
      learner_(learner) {}

Experience RecordSource::next(int64_t, const StepPlan::Items& items, MetricMeans&) {
  std::vector<const Example*> examples;
  for (int64_t i = 0; i < items.count; ++i) examples.push_back(&stream_[items.first + uint64_t(i)]);
  return experience_of(examples, algorithm_.needs().source);
}

Json RecordSource::evaluate() {
  return evaluate_records(data_.heldout, stage_.eval_rows, items_per_step_, algorithm_, learner_);
}

RolloutSource::RolloutSource(const StageConfig& stage, const StageData& data, uint64_t seed, uint64_t key,
                             const dse_needs& needs, StageModels& models, const PluginRegistry& registry,
                             const TextModel& text, Phases& phases, Communicator& ranks)
    : stage_(stage),
      data_(data),
      phases_(phases),
      evaluated_(evaluated(stage.rollout)),
      scheduler_(models.roles().actor->model, limits_of(stage.rollout)),
      memory_(phases, scheduler_, models.roles().actor->model, stage.rollout),
      collector_(stage.rollout, needs.group_size, data.records, seed, key),
      rollout_(scheduler_, text, stage.rollout, seed ^ key, ranks),
      heldout_(scheduler_, text, evaluated_, seed ^ uint64_t(Purpose::evaluate), ranks) {
  if (needs.roles & DSE_REWARD) scorer_.emplace(stage.reward_sources(), models.rewards(), registry, ranks);
  if (sampling_of(stage.rollout).filters())
    spdlog::warn(
        "rollout filters=on note=\"top_k, top_p, min_p and repetition_penalty make log-probs those of another "
        "distribution than the one sampled\"");
}

Experience RolloutSource::next(int64_t step, const StepPlan::Items& items, MetricMeans& means) {
  memory_.take_pack_seconds();  // an evaluation's
  Experience experience = collector_.collect(step, items, rollout_, scorer(), phases_, means);
  if (stage_.rollout.weights != WeightFormat::fp32) means.add("seconds_pack", memory_.take_pack_seconds());
  return experience;
}

Json RolloutSource::evaluate() {
  return evaluate_rollouts(data_.heldout, stage_.eval_rows, heldout_, scorer(), phases_);
}

void RolloutSource::set_watch(const CallWatch::Rules& watch) {
  if (scorer_) scorer_->set_watch(watch);
}

}  // namespace dsengine

// What a stage needs against what there is, and what would make it fit.
//
//   check.stage(0, needs, inputs);
//   const StagePlan plan = check.plan(stage);
//   if (plan.peak() > limit) throw UserError(too_large(plan, limit, way_to_fit(check, stage, plan, limit)));
//
// They ask the check for plans of the stage that it looked at last; plan: that of the stage as it is.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "rl/input_check.h"

namespace dsengine {

// Bytes that a run's tensors may take together: what the configuration says, else what is free of the device's own
// memory; of the host's, the machine's or its control group's without what the program has taken already.
int64_t memory_limit(const RunConfig& run, const Device& device);

// "plan stage=ppo phase=actor peak=…", one for each phase in which anything is done.
std::vector<std::string> plan_lines(const StagePlan& plan);

// The stage with other settings, named as in a configuration.
struct Variant {
  std::string settings;
  StageConfig stage;
  StagePlan plan;
};

// Ways to need less memory, each alone, in the order of what they cost in time or in what is learned.
std::vector<Variant> savings(InputCheck& check, const StageConfig& stage, const StagePlan& plan);

// Settings that fit the limit: those of the savings that help, in their order, as many as it takes, and with them the
// largest micro-batch, or the most slots, that fit. None: whatever was tried, it does not.
std::optional<Variant> way_to_fit(InputCheck& check, const StageConfig& stage, const StagePlan& plan, int64_t limit);

// The stage with its largest micro-batch, up to its minibatch; none where not even the smallest fits.
std::optional<Variant> largest_micro_batch(InputCheck& check, const StageConfig& stage, int64_t limit);

// Why a run does not begin, in one line.
std::string too_large(const StagePlan& plan, int64_t limit, const std::optional<Variant>& way);

}  // namespace dsengine

// What a stage that goes on is compared with: what it began with, where it computed, and how long it was to be.
//
//   directory.check_inputs(stage_fingerprints(stage, inputs, data, roles, registry));
//   check_length(stage, directory, state, plan, plan_of_before, roles);
//   warn_of_environment(state.environment, environment_of(kernels, ranks));
#pragma once
#include "comm/communicator.h"
#include "rl/checkpoint.h"
#include "rl/example_stream.h"
#include "rl/stage_data.h"
#include "rl/stage_models.h"

namespace dsengine {

// All that a stage's results rest on, by content.
Json stage_fingerprints(const StageConfig& stage, const StageInputs& inputs, const StageData& data, const Roles& roles,
                        const PluginRegistry& registry);

// What bitwise equality of a resumed run rests on, beside its settings and inputs.
Json environment_of(const Kernels& kernels, const Communicator& ranks, at::ScalarType dtype = at::kFloat);
void warn_of_environment(const Json& before, const Json& now);

// The steps of a checkpoint are the first of this stage's plan, if that is to be longer than it was.
void check_length(const StageConfig& stage, const StageDirectory& directory, const StageState& state,
                  const StepPlan& plan, const StepPlan& before, const Roles& roles);

}  // namespace dsengine

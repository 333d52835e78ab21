// What is wrong with a configuration's stages that can be known before any runs and any model is read: plugins,
// options, batch sizes, names. Each is a UserError that names the stage.
//
//   for (size_t i = 0; i < config.stages.size(); ++i) check_stage(config, i, registry);
#pragma once
#include "plugin/instance.h"
#include "plugin/registry.h"
#include "run/config.h"

namespace dsengine {

// The stage's algorithm with the options that the stage gives it, and what it needs with them.
AlgorithmInstance algorithm_of(const PluginRegistry& registry, const StageConfig& stage);
dse_needs needs_of(const PluginRegistry& registry, const StageConfig& stage);

// What of the engine a stage switches on fits together, and its algorithm gives what that needs.
void check_options(const RunConfig& config, const StageConfig& stage, const dse_needs& needs);
void check_stage(const RunConfig& config, size_t index, const PluginRegistry& registry);
// `from` is empty, a directory, or the name of a stage before this one.
void check_from(const RunConfig& config, size_t index, const std::string& from);

}  // namespace dsengine

// What is wrong with a configuration's stages that can be known before any runs and any model is read: plugins,
// options, batch sizes, names. Each is a UserError that names the stage.
//
//   for (size_t i = 0; i < config.stages.size(); ++i) check_stage(config, i, registry);
#pragma once
#include "plugin/registry.h"
#include "run/config.h"

namespace dsengine {

// What the stage's algorithm needs, with the options that the stage gives it.
dse_needs needs_of(const PluginRegistry& registry, const StageConfig& stage);

void check_stage(const RunConfig& config, size_t index, const PluginRegistry& registry);
// `from` is empty, a directory, or the name of a stage before this one.
void check_from(const RunConfig& config, size_t index, const std::string& from);

}  // namespace dsengine

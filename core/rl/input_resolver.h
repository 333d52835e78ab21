// Where each stage's models come from: the configuration, or what earlier stages of the run make.
//
//   const InputResolver models(config, registry);
//   StageInputs inputs = models.inputs_of(1);
//
// Defaults of a role's weights: the actor is the last earlier stage's actor, else model.actor; the reference is
// the actor before training; the critic starts as the reward model; the reward model is the last earlier
// stage's, and one that is trained starts from the actor. Borrows both.
#pragma once
#include <optional>
#include <string>

#include "rl/stage_models.h"

namespace dsengine {

class InputResolver {
 public:
  InputResolver(const RunConfig& config, const PluginRegistry& registry) : config_(config), registry_(registry) {}

  StageInputs inputs_of(size_t index) const;
  // Where a finished stage leaves its model.
  std::filesystem::path model_of(const std::string& stage_name) const;
  // The stage whose output lies in this folder; null: none.
  const StageConfig* maker_of(const std::filesystem::path& model) const;

 private:
  // The output of the last stage before `index` that makes a model of that kind.
  std::optional<std::filesystem::path> earlier(size_t index, ModelKind kind) const;
  std::filesystem::path resolve(size_t index, const std::string& from, const std::filesystem::path& fallback) const;

  const RunConfig& config_;
  const PluginRegistry& registry_;
};

}  // namespace dsengine

// A run: its stages in turn, each fed by the models that earlier ones made.
//
//   Pipeline pipeline(config, registry, kernels);
//   pipeline.run_all();                       // or run_until("ppo"): that stage and what it needs
//
// Defaults of a role's weights: the actor is the last earlier stage's actor, else model.actor; the reference is
// the actor before training; the critic starts as the reward model; the reward model is the last earlier
// stage's, and one that is trained starts from the actor. A stage that is done is not run again; one whose inputs were
// trained anew since is refused.
#pragma once
#include <optional>
#include <string>

#include "rl/stage.h"

namespace dsengine {

class Pipeline {
 public:
  Pipeline(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels);

  // False: a signal stopped it.
  bool run_all();
  bool run_until(const std::string& stage_name);
  // Where a finished stage left its model.
  std::filesystem::path model_of(const std::string& stage_name) const;

 private:
  // Everything about a stage that can be known before any stage runs: plugins, options, data, batch sizes.
  void check_stage(size_t index) const;
  void check_services(const StageConfig& stage, const dse_needs& needs) const;
  void check_from(size_t index, const std::string& from) const;
  bool run_stage(size_t index);
  // What the stage's weights come from: hashes of earlier stages' outputs, paths of other folders.
  Json lineage_of(const StageInputs& inputs) const;
  StageInputs inputs_of(size_t index) const;
  // The output of a finished stage before `index`: of that kind, or by name.
  std::optional<std::filesystem::path> earlier(size_t index, const std::string& kind) const;
  std::filesystem::path resolve(size_t index, const std::string& from, const std::filesystem::path& fallback) const;

  const RunConfig& config_;
  const PluginRegistry& registry_;
  const Kernels& kernels_;
  std::optional<RunDirectory> directory_;  // made once all stages are known to fit
  StopSignal stop_;
};

// The stage whose algorithm is `algorithm`; where there is none, the last stage of the same source is given that
// algorithm, its name and what the configuration says under plugin.<algorithm>. Returns the stage's name.
std::string select_algorithm(RunConfig& config, const PluginRegistry& registry, const std::string& algorithm);

}  // namespace dsengine

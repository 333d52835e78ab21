// A run: its stages in turn, each fed by the models that earlier ones made.
//
//   Pipeline pipeline(config, registry, kernels, stop);
//   pipeline.run_all();                       // or run_until("ppo"): that stage and what it needs
//
// Of several ranks each has one, with the same arguments. Rank 0 alone writes.
//
// A stage that is done is not run again, unless it shall be longer; one whose inputs are others since is refused.
// Nothing is written before every stage's plugins, models and records are known to fit, and its memory too.
#pragma once
#include <optional>
#include <string>

#include "rl/input_check.h"
#include "rl/input_resolver.h"
#include "rl/stage.h"
#include "run/run_directory.h"

namespace dsengine {

class Pipeline {
 public:
  // last: the stage that run_until will be given; "": all will be run. Of later ones the memory is not looked at.
  Pipeline(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels, const StopSignal& stop,
           Changes changes = Changes::refused, const std::string& last = "", Communicator& ranks = alone());

  // False: a signal stopped it.
  bool run_all();
  bool run_until(const std::string& stage_name);
  // Where a finished stage left its model.
  std::filesystem::path model_of(const std::string& stage_name) const { return models_.model_of(stage_name); }

 private:
  bool run_stage(size_t index);
  void check_stages(Changes changes, const std::string& last);
  // The models of a stage, and none where it has its length.
  std::optional<StageInputs> inputs_of(size_t index, const StageDirectory& directory) const;
  // Whether the settings of a stage that has ended still ask for the steps that it has.
  bool has_length(const StageConfig& stage, const Json& summary) const;
  // The content of the models that a stage has from earlier ones, as these left them.
  Json inherited_fingerprints(const StageInputs& inputs) const;
  // The same, compared with the folders, and that of the stage's other models, its tokenizer and its plugins.
  Json fingerprints_of(size_t index, const StageInputs& inputs) const;
  // UserError where a step of the stage would need more memory than there is.
  void check_memory(InputCheck& check, const StageConfig& stage) const;

  const RunConfig& config_;
  const PluginRegistry& registry_;
  const InputResolver models_;
  const Kernels& kernels_;
  const StopSignal& stop_;
  Communicator& ranks_;
  std::optional<RunDirectory> directory_;  // made once all stages are known to fit
};

// The stage whose algorithm is `algorithm`; where there is none, the last stage of the same source is given that
// algorithm, its name and what the configuration says under plugin.<algorithm>. Returns the stage's name.
std::string select_algorithm(RunConfig& config, const PluginRegistry& registry, const std::string& algorithm);

}  // namespace dsengine

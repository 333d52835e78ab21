// Whether the models and records of stages fit, before any of them runs and before anything is written.
//
//   InputCheck check(config, registry, stop);
//   check.stage(0, needs, inputs);                       // UserError naming the file, the record or the tensor
//   StagePlan plan = check.plan(config.stages[0]);       // of the stage that was looked at last, or of a variant of it
//
// Records are read and encoded as for training. Of a model that an earlier stage is still to make, its beginning is
// looked at. Weights are not read: their names and shapes are.
#pragma once
#include <map>

#include <optional>

#include "comm/local.h"
#include "rl/rehearsal.h"
#include "run/stop_signal.h"

namespace dsengine {

class InputCheck {
 public:
  // for_card: stages are planned for a graphics card. ranks: for the first of so many; another may have a row more.
  InputCheck(const RunConfig& config, const PluginRegistry& registry, const StopSignal& stop, bool for_card = false,
             int64_t ranks = 1);
  // In the order of the stages.
  void stage(size_t index, const dse_needs& needs, const StageInputs& inputs);
  // What a step of the stage takes that was looked at last. variant: its configuration, or one that differs in how it
  // computes.
  StagePlan plan(const StageConfig& variant);
  // What the models of plans compute in.
  at::ScalarType dtype() const { return compute_type(config_, kernels_); }
  // Of the machine that the seconds of plans are for.
  void set_rates(const MachineRates& rates) { kernels_.set_rates(rates); }
  // It has memory of its own: what is offloaded is in another.
  void set_host_apart() { host_apart_ = true; }

 private:
  // What a folder of the run will be made from; another folder itself.
  std::filesystem::path origin_of(const std::filesystem::path& model) const;
  void check_model(const std::filesystem::path& model, ModelKind kind, bool random, bool trained);
  void open_plugins(const StageInputs& inputs) const;

  struct Read {
    StageInputs inputs;  // folders that are there
    TextModel text;
    StageData data;
  };

  const RunConfig& config_;
  const PluginRegistry& registry_;
  const StopSignal& stop_;
  AbsentRanks ranks_;
  Kernels kernels_;                                                 // on the meta device
  std::map<std::filesystem::path, std::filesystem::path> origins_;  // of the outputs of the stages looked at
  std::optional<Read> read_;                                        // of the last of them
  bool host_apart_ = false;
};

}  // namespace dsengine

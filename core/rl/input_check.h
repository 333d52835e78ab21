// Whether the models and records of stages fit, before any of them runs and before anything is written.
//
//   InputCheck check(config, registry, kernels);
//   check.stage(0, needs, inputs);                       // UserError naming the file, the record or the tensor
//
// Records are read and encoded as for training. Of a model that an earlier stage is still to make, its beginning is
// looked at. Weights are not read: their names and shapes are.
#pragma once
#include <map>

#include "rl/stage.h"

namespace dsengine {

class InputCheck {
 public:
  InputCheck(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels)
      : config_(config), registry_(registry), kernels_(kernels) {}
  // In the order of the stages.
  void stage(size_t index, const dse_needs& needs, const StageInputs& inputs);

 private:
  // What a folder of the run will be made from; another folder itself.
  std::filesystem::path origin_of(const std::filesystem::path& model) const;
  void check_model(const std::filesystem::path& model, ModelKind kind, bool random, bool trained);
  void open_plugins(const StageInputs& inputs) const;

  const RunConfig& config_;
  const PluginRegistry& registry_;
  const Kernels& kernels_;
  std::map<std::filesystem::path, std::filesystem::path> origins_;  // of the outputs of the stages looked at
};

}  // namespace dsengine

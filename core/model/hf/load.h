// A Hugging Face directory becomes a model.
//
//   Model model = load_model("models/tiny", registry, kernels, {.kind = ModelKind::language});
//   Model drawn = create_model(config, "config.json", registry, kernels, {.seed = 1});
//   load_weights(model, "models/other", {});            // the same shapes, other values
//
// Kernels are borrowed by the model. On the meta device (Device::has_values) names and shapes are compared with the
// files, and no value is read. Errors are UserErrors that name the directory's file, key or tensor.
#pragma once
#include <filesystem>
#include <string>

#include "model/model.h"
#include "plugin/registry.h"

namespace dsengine {

struct ModelOptions {
  ModelKind kind = ModelKind::language;
  bool random_init = false;     // read config.json alone and draw the weights from the seed
  bool quick_draws = false;     // or by the device's own generator, for benches
  bool new_value_head = false;  // value models: a missing score.weight is begun at zero, to be trained
  uint64_t seed = 0;
  at::ScalarType dtype = at::kFloat;
  std::filesystem::path base{};  // of an adapter, in place of the one that its configuration names
  StreamSettings streamed{};     // of layers
};

// An adapter's directory (hf/adapter_files.h) is loaded beside its base.
Model load_model(const std::filesystem::path& directory, const PluginRegistry& registry, const Kernels& kernels,
                 const ModelOptions& options);
// From a declaration alone, weights drawn from the seed (Init::normal has the config's initializer_range). `where`
// names the config in errors.
Model create_model(const Json& config, const std::string& where, const PluginRegistry& registry, const Kernels& kernels,
                   const ModelOptions& options);
// Into a model of the graph that the directory's config.json declares, however its parameters lie; an adapter's are
// left as they are. Of the options `new_value_head` counts.
void load_weights(Model& model, const std::filesystem::path& directory, const ModelOptions& options);

}  // namespace dsengine

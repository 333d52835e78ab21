// What every command starts from: threads, plugins, kernels, and a model with its tokenizer.
//
//   Session session(options);
//   LoadedModel model = session.load("models/tiny", ModelKind::language, "fp32");
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/kernels.h"
#include "model/model.h"
#include "plugin/registry.h"
#include "rl/examples.h"

namespace dsengine {

struct LoadedModel {
  Model model;
  std::optional<TextModel> text;  // where the directory has a tokenizer
  std::vector<int32_t> eos;
};

// Threads for computing: 0 takes the cores this process may use. Also sets what bitwise repeatability needs
// and hands the team to plugins. Once, before the first tensor.
void set_up_threads(int64_t threads);

class Session {
 public:
  Session(const std::vector<std::filesystem::path>& plugin_path, const std::vector<PluginFile>& files = {});

  const PluginRegistry& registry() const { return registry_; }
  const Kernels& kernels() const { return kernels_; }
  // dtype: fp32, or bf16: weights rounded to bfloat16, arithmetic in float32.
  LoadedModel load(const std::filesystem::path& directory, ModelKind kind, const std::string& dtype) const;

 private:
  PluginRegistry registry_;
  Kernels kernels_;
};

}  // namespace dsengine

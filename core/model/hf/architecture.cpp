#include "model/hf/architecture.h"

#include "base/check.h"
#include "files/hf_directory.h"

namespace dsengine {

namespace {

constexpr std::string_view kLanguage = "ForCausalLM", kValue = kValueModel, kOldLanguage = "LMHeadModel";

// "LlamaForSequenceClassification" -> "LlamaForCausalLM", and the other way.
std::string with_ending(std::string name, std::string_view from, std::string_view to) {
  if (name.ends_with(from)) name.replace(name.size() - from.size(), from.size(), to);
  return name;
}

const Item& plugin_of(const std::string& architecture, const std::string& where, const PluginRegistry& registry) try {
  return registry.find_model(architecture);
} catch (const UserError& error) {
  user_error(where + ": " + error.what());
}

}  // namespace

ModelGraph declare_architecture(const Json& config, const std::string& where, const PluginRegistry& registry) {
  const std::string given = architecture_of(config, where);
  std::string name = with_ending(given, kValue, kLanguage);
  // GPT-2's language model has an ending of its own.
  if (const auto other = with_ending(given, kValue, kOldLanguage); given != other && registry.has_model(other))
    name = other;
  ModelGraph graph = declare(plugin_of(name, where, registry).model(), config, where);
  graph.architecture = name;
  return graph;
}

std::string architecture_for(const ModelGraph& graph, ModelKind kind) {
  if (kind == ModelKind::language) return graph.architecture;
  return with_ending(with_ending(graph.architecture, kLanguage, kValue), kOldLanguage, kValue);
}

}  // namespace dsengine

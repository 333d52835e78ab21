// The architecture that a config.json names, and the graph that its plugin declares.
//
//   const ModelGraph graph = declare_architecture(config, "models/x/config.json", registry);
//   config["architectures"] = {architecture_for(graph, ModelKind::value)};     // "LlamaForSequenceClassification"
#pragma once
#include <string>

#include "base/json.h"
#include "base/model_kind.h"
#include "model/graph.h"
#include "plugin/registry.h"

namespace dsengine {

// The graph that the plugin for config.json's architecture declares; `where` names that file in errors.
// "XForSequenceClassification" is declared as "XForCausalLM" is; what differs is the head.
ModelGraph declare_architecture(const Json& config, const std::string& where, const PluginRegistry& registry);

// The architecture's name with a head of that kind.
std::string architecture_for(const ModelGraph& graph, ModelKind kind);

}  // namespace dsengine

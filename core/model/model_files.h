// Between a model and its Hugging Face directory: the architecture's declaration. Loading and saving are Model's.
#pragma once
#include "base/json.h"
#include "model/graph.h"
#include "plugin/registry.h"

namespace dsengine {

// The graph that the plugin for config.json's architecture declares. "XForSequenceClassification" is declared
// as "XForCausalLM" is; what differs is the head.
ModelGraph declare_architecture(const Json& config, const std::string& where, const PluginRegistry& registry);

}  // namespace dsengine

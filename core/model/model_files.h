// Between a model and its Hugging Face directory.
#pragma once
#include <filesystem>
#include <vector>

#include "base/json.h"
#include "model/graph.h"
#include "model/model.h"
#include "plugin/registry.h"

namespace dsengine {

// The graph that the plugin for config.json's architecture declares. "XForSequenceClassification" is declared
// as "XForCausalLM" is; what differs is the head.
ModelGraph declare_architecture(const Json& config, const std::string& where, const PluginRegistry& registry);

// UserError where a path is no model's directory: nothing is there, or a file, or no configuration is in it. `name`
// says whose path it is ("--model", "model.actor").
void check_model_directory(const std::filesystem::path& directory, const std::string& name = "");

// Ids that generation_config.json, else config.json, names so ("bos_token_id"): an id or a list. May be empty.
std::vector<int32_t> token_ids(const std::filesystem::path& directory, const std::string& key);
// "eos_token_id": end-of-sequence ids.
std::vector<int32_t> eos_ids(const std::filesystem::path& directory);

// What a directory's head is: config.json's architecture, or an adapter's task.
ModelKind stored_kind(const std::filesystem::path& directory);

// Files of the tokenizer (and generation_config.json) that go along when a model is saved.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dsengine

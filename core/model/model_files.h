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

// `base`, here and below: of an adapter, in place of the one that its configuration names; may be empty.
// Ids that generation_config.json (an adapter's own, else its base's), else config.json, names so ("bos_token_id"): an
// id or a list. May be empty.
std::vector<int32_t> token_ids(const std::filesystem::path& directory, const std::string& key,
                               const std::filesystem::path& base = {});
// "eos_token_id": end-of-sequence ids.
std::vector<int32_t> eos_ids(const std::filesystem::path& directory, const std::filesystem::path& base = {});

// Writes a model's generation_config.json to another directory, the tokens that end an answer replaced by `ends` where
// there are any. A model that has no such settings gets them where `ends` are given, else none.
void save_generation_settings(const std::filesystem::path& directory, const std::filesystem::path& base,
                              const std::vector<int32_t>& ends, const std::filesystem::path& to);

// What a directory's head is: config.json's architecture, or an adapter's task.
ModelKind stored_kind(const std::filesystem::path& directory, const std::filesystem::path& base = {});

// Files of the tokenizer that go along when a model is saved.
void copy_tokenizer_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dsengine

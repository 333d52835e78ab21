// What a model's Hugging Face directory says of itself in JSON: its architecture, its end tokens, an adapter's base.
//
//   check_model_directory("models/tiny", "--model");                  // UserError: what is there is no model
//   std::vector<int32_t> ends = eos_ids("models/tiny");
//   if (is_adapter(directory)) read(base_directory(directory));       // another directory is its own base
//
// `base`, here and below: of an adapter, in place of the one that its configuration names; may be empty.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/model_kind.h"

namespace dsengine {

// How the architecture of a value model ends.
constexpr std::string_view kValueModel = "ForSequenceClassification";

// UserError where a path is no model's directory: nothing is there, or a file, or no configuration is in it. `name`
// says whose path it is ("--model", "model.actor").
void check_model_directory(const std::filesystem::path& directory, const std::string& name = "");

// The one name in config.json's list `architectures`; `where` names the file.
std::string architecture_of(const Json& config, const std::string& where);
// What a directory's head is: config.json's architecture, or an adapter's task.
ModelKind stored_kind(const std::filesystem::path& directory, const std::filesystem::path& base = {});

// Whether it is a LoRA adapter's directory, as PEFT writes it: one with this file.
constexpr const char* kAdapterConfig = "adapter_config.json";
bool is_adapter(const std::filesystem::path& directory);
// An adapter's adapter_config.json, a JSON object.
Json read_adapter_config(const std::filesystem::path& directory);
// The base of an adapter; another directory is its own. `given` where it is not empty, else base_model_name_or_path:
// absolute, or relative to the working directory, as PEFT finds it, or to the adapter's folder. UserError where no
// model lies there.
std::filesystem::path base_directory(const std::filesystem::path& directory, const std::filesystem::path& given = {});
// A warning where an adapter's relative base is a model in both of these places.
void warn_of_two_bases(const std::filesystem::path& directory);

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

}  // namespace dsengine

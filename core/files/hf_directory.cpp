#include "files/hf_directory.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/directory.h"
#include "base/regular_file.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

// Where base_model_name_or_path may lie: as PEFT finds it, from the working directory; then beside the adapter.
std::vector<fs::path> places_of_base(const fs::path& directory, const fs::path& named) {
  if (named.is_absolute()) return {named};
  return {named, directory / named};
}

bool is_model(const fs::path& directory) {
  std::error_code none;
  return fs::exists(directory / "config.json", none) || fs::exists(directory / kAdapterConfig, none);
}

constexpr const char* kGeneration = "generation_config.json";
constexpr std::array kGenerationKeys{"eos_token_id",
                                     "bos_token_id",
                                     "pad_token_id",
                                     "_from_model_config",
                                     "do_sample",
                                     "temperature",
                                     "top_k",
                                     "top_p",
                                     "min_p",
                                     "repetition_penalty",
                                     "max_length",
                                     "max_new_tokens",
                                     "transformers_version",
                                     "decoder_start_token_id"};

// Of an adapter: its own, else its base's.
fs::path generation_file(const fs::path& model, const fs::path& base) {
  const auto own = model / kGeneration;
  return file_exists(own) ? own : base_directory(model, base) / kGeneration;
}

}  // namespace

std::string architecture_of(const Json& config, const std::string& where) {
  const auto it = config.find("architectures");
  DSE_CHECK_USER(it != config.end() && it->is_array() && it->size() == 1 && (*it)[0].is_string(),
                 "{}: 'architectures' should be a list of one name", where);
  return (*it)[0];
}

void check_model_directory(const fs::path& directory, const std::string& name) {
  check_directory(directory, name);
  if (file_exists(directory / "config.json") || is_adapter(directory)) return;
  const auto within = directory / "model";
  user_error(fmt::format("{}: no config.json is in it: this is no model's directory{}", named_path(directory, name),
                         fs::exists(within / "config.json") ? "; give " + within.string() : ""));
}

Json read_adapter_config(const fs::path& directory) {
  const Json config = read_json(directory / kAdapterConfig);
  DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", (directory / kAdapterConfig).string());
  return config;
}

bool is_adapter(const fs::path& directory) { return file_exists(directory / kAdapterConfig); }

fs::path base_directory(const fs::path& directory, const fs::path& given) {
  if (!is_adapter(directory)) return directory;
  const auto where = (directory / kAdapterConfig).string();
  fs::path base = given;
  if (given.empty()) {
    const Json config = read_adapter_config(directory);
    const Json name = config.value("base_model_name_or_path", Json());
    DSE_CHECK_USER(name.is_string(), "{}: 'base_model_name_or_path' is missing or of another type", where);
    const fs::path named = name.get<std::string>();
    const auto places = places_of_base(directory, named);
    const auto found = std::ranges::find_if(places, is_model);
    DSE_CHECK_USER(found != places.end(),
                   "{}: the base model {} is no model's directory{}: put its path in base_model_name_or_path, or give "
                   "it with --base",
                   where, named.string(),
                   places.size() > 1 ? ", neither from the working directory nor beside the adapter" : "");
    base = *found;
  }
  DSE_CHECK_USER(is_model(base), "the base {} of {} is no model's directory", base.string(), directory.string());
  DSE_CHECK_USER(!is_adapter(base), "{}: the base model {} is an adapter itself: merge that one first (export)", where,
                 base.string());
  return base.lexically_normal();
}

// One line where a relative base can be read in two ways.
void warn_of_two_bases(const fs::path& directory) {
  const auto named = read_adapter_config(directory).value("base_model_name_or_path", Json());
  if (!named.is_string()) return;
  const auto places = places_of_base(directory, named.get<std::string>());
  std::error_code none;
  if (places.size() < 2 || !is_model(places[0]) || !is_model(places[1]) || fs::equivalent(places[0], places[1], none))
    return;
  spdlog::warn(
      "adapter directory={} base={} other={} note=\"both are models: the working directory's is taken, as PEFT "
      "does; --base takes another\"",
      directory.string(), places[0].string(), places[1].string());
}

std::vector<int32_t> eos_ids(const fs::path& model, const fs::path& base) {
  return token_ids(model, "eos_token_id", base);
}

std::vector<int32_t> token_ids(const fs::path& model, const std::string& key, const fs::path& base) {
  for (const auto& path : {generation_file(model, base), base_directory(model, base) / "config.json"}) {
    if (!file_exists(path)) continue;
    const Json config = read_json(path);
    DSE_CHECK_USER(config.is_object(), "{}: expected a JSON object", path.string());
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) continue;
    std::vector<int32_t> ids;
    for (const auto& id : it->is_array() ? *it : Json::array({*it})) {
      const auto number = whole_number(id, 0, INT32_MAX);
      DSE_CHECK_USER(number, "{}: {} should be an id or a list of ids, is {}", path.string(), key, it->dump());
      ids.push_back(int32_t(*number));
    }
    return ids;
  }
  return {};
}

void save_generation_settings(const fs::path& model, const fs::path& base, const std::vector<int32_t>& ends,
                              const fs::path& to) {
  if (model.empty()) return;  // made from a declaration
  const auto from = generation_file(model, base);
  Json settings = Json::object();
  if (file_exists(from)) {
    settings = read_json(from);
    DSE_CHECK_USER(settings.is_object(), "{}: expected a JSON object", from.string());
    // A link to another file is nobody's business here.
    if (!settings.empty() && std::ranges::none_of(kGenerationKeys, [&](auto key) { return settings.contains(key); })) {
      spdlog::warn("model event=file_left_out reason=\"{}: none of its keys is one of such a file\"", from.string());
      settings = Json::object();
      if (ends.empty()) return;
    }
  } else if (ends.empty()) {
    return;
  } else {  // what readers took from config.json until now
    const Json config = read_json(base_directory(model, base) / "config.json");
    for (const char* key : {"bos_token_id", "pad_token_id"})
      if (const Json id = config.value(key, Json()); !id.is_null()) settings[key] = id;
  }
  if (!ends.empty()) settings["eos_token_id"] = ends.size() == 1 ? Json(ends[0]) : Json(ends);
  write_text(to / kGeneration, settings.dump(2) + "\n");
}

ModelKind stored_kind(const fs::path& directory, const fs::path& base) {
  if (is_adapter(directory)) {
    if (read_adapter_config(directory).value("task_type", Json()) == "SEQ_CLS") return ModelKind::value;
    return stored_kind(base_directory(directory, base));
  }
  const auto path = directory / "config.json";
  return architecture_of(read_json(path), path.string()).ends_with(kValueModel) ? ModelKind::value
                                                                                : ModelKind::language;
}

}  // namespace dsengine

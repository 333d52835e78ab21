// The configuration's keys as text: values in TOML, ranges in words, and the list of all keys.
//
//   toml_value(1e-5);                             // 1e-05
//   toml_text(config);                            // the whole configuration; load_config reads it back
//   for (const KeyRow& row : config_key_rows()) fmt::print("{}: {}\n", row.path, row.help);
#pragma once
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "plugin/option.h"
#include "run/config_keys.h"

namespace dsengine {

// A leaf as TOML spells it.
template <class T>
std::string toml_value(const T& value) {
  if constexpr (std::is_same_v<T, std::filesystem::path>)
    return to_toml(OptionVariant(value.string()));
  else if constexpr (std::is_same_v<T, uint64_t>)
    return to_toml(OptionVariant(static_cast<int64_t>(value)));
  else if constexpr (std::is_same_v<T, std::vector<std::string>> || std::is_same_v<T, std::vector<int64_t>>) {
    std::string items;
    for (const auto& item : value) items += (items.empty() ? "" : ", ") + toml_value(item);
    return "[" + items + "]";
  } else
    return to_toml(OptionVariant(value));
}

// "from 0 to 1", "at least 1", "one of cosine, linear, constant"; "" where all is allowed.
std::string range_text(const Limits& limits);

std::string toml_text(const RunConfig& config);

// All that decides what `stage` computes, one "key = value" a line: what a resumed run is compared by.
std::string stage_settings(const RunConfig& config, const StageConfig& stage);

// "stage[].rollout.top_k": a list's elements are marked [], and * stands for any name (a plugin's options).
struct KeyRow {
  std::string path, type, default_text, range, help;
  bool wants_string = false;
};
std::vector<KeyRow> config_key_rows();

// Every key with type, default, range and help, as the docs show them.
std::string config_reference_markdown();

}  // namespace dsengine

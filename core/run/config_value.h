// One value of a configuration's TOML, brought to its type and held to its key's limits.
//
//   int64_t rows = 0;
//   read_value(node, "rollout.batch_size", rows, {.min = 1});   // UserError: run.toml:12: 'rollout.batch_size' …
#pragma once
#include <toml++/toml.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "base/choice.h"
#include "plugin/settings.h"
#include "run/config_keys.h"

namespace dsengine {

// "run.toml:12", or the --set that gave it.
std::string where(const toml::node& node);
[[noreturn]] void wrong_type(const toml::node& node, const std::string& key, const char* expected);

// A relative path means the folder of the file it stands in, or the working directory if --set gave it.
std::filesystem::path absolute_path(const toml::node& node, const std::filesystem::path& path,
                                    bool in_working_directory);

void read_value(const toml::node& node, const std::string& key, bool& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, int64_t& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, uint64_t& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, double& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, std::string& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, std::filesystem::path& out, const Limits& limits);
void read_value(const toml::node& node, const std::string& key, OptionValue& out);

template <Choice E>
void read_value(const toml::node& node, const std::string& key, E& out, const Limits&) {
  std::string name;
  read_value(node, key, name, limits_of<E>());
  out = *choice_named<E>(name);
}

// expected: "an array of strings", for errors.
template <class T>
void read_array(const toml::node& node, const std::string& key, std::vector<T>& out, const char* expected,
                const Limits& limits) {
  if (!node.is_array()) wrong_type(node, key, expected);
  out.clear();
  for (const toml::node& item : *node.as_array()) {
    const std::string item_key = key + "[" + std::to_string(out.size()) + "]";
    read_value(item, item_key, out.emplace_back(), limits);
  }
}

template <class T>
void read_value(const toml::node& node, const std::string& key, std::vector<T>& out, const Limits& limits) {
  read_array(node, key, out, std::is_same_v<T, int64_t> ? "an array of integers" : "an array of strings", limits);
}

}  // namespace dsengine

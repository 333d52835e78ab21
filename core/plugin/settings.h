// What a configuration says about plugins, before any is loaded: option values and library files.
//
//   OptionValues given{{"kl_coef", {0.1, "run.toml:12: plugin.ppo.kl_coef"}}};
//   PluginFile file{"build/libdse_myloss.so", ""};
//   PluginRegistry registry({}, {file});
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>

namespace dsengine {

using OptionVariant = std::variant<bool, int64_t, double, std::string>;

// An option of a plugin item as TOML gave it; the plugin's own option table checks it (plugin/option.h).
struct OptionValue {
  OptionVariant value;
  std::string where;  // "run.toml:12: plugin.ppo.kl_coef", for errors
};
using OptionValues = std::map<std::string, OptionValue>;

struct PluginFile {
  std::filesystem::path file;
  std::string sha256;  // "" or 64 hex digits, checked before the library is opened
};

}  // namespace dsengine

// "--set key=value" overrides, written into the parsed file before it is read.
//
//   toml::table root = toml::parse_file("run.toml");
//   apply_set(root, "rollout.batch_size=8");           // in every stage
//   apply_set(root, "stage.ppo.plugin.ppo.gamma=0.9");  // in one
//
// A written node has "--set key=value" as its source path, so that errors name it and relative paths in it
// are relative to the working directory.
#pragma once
#include <toml++/toml.h>
#include <string>
#include <string_view>

namespace dsengine {

void apply_set(toml::table& root, const std::string& set);

// Whether --set gave it.
bool is_set(const toml::node& node);

// "; did you mean 'rollout.batch_size'?" for a key that does not exist, or what else helps. `scope` holds the
// rows that may be meant: "stage[]." or "".
std::string key_suggestion(std::string_view key, std::string_view scope);

}  // namespace dsengine

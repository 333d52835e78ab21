// Texts of `dsengine plugins list` and `dsengine plugins info NAME`.
//
//   fmt::print("{}", list_plugins(registry));
//   fmt::print("{}", describe_items(registry, "ppo"));  // UserError with "did you mean" where there is none
//   fmt::print("{}", describe_item(registry.find(DSE_ALGORITHM, "ppo")));
#pragma once
#include <string>

#include "plugin/registry.h"

namespace dsengine {

// A table of kind, name, version, file and summary; then the files that others hide, and those that cannot be used. No
// library is opened for it.
std::string list_plugins(const PluginRegistry& registry);
// What an item is, where it comes from, and its options with type, default, range and help.
std::string describe_item(const Item& item);
// Every item of that name, whatever its kind.
std::string describe_items(const PluginRegistry& registry, const std::string& name);

}  // namespace dsengine

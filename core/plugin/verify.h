// Tries a plugin without a model or a run: `dsengine plugins verify`.
//
//   auto checks = verify(registry, "build/libdse_myloss.so");  // a file, or an item's name
//   fmt::print("{}", format_checks(checks));
//   return all_ok(checks) ? 0 : 1;
//
// Algorithms run on made-up batches: finite losses, gradients against central differences, the same result
// twice, whatever the micro-batch, and after save and load. Datasets must refuse a missing file, rewards
// score two answers. What needs a model or a device comes from hooks.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "plugin/options.h"
#include "plugin/registry.h"

namespace dsengine {

struct Check {
  std::string name;  // "algorithm ppo: gradients"
  bool ok = false;
  std::string detail;  // what was found, or what is wrong
  bool warning = false;
};
using Checks = std::vector<Check>;

// Further checks of an item of a kind (DSE_MODEL, DSE_KERNEL …), given by libraries that can run them.
using VerifyHooks = std::map<uint32_t, std::function<Checks(const Item&, const OptionSet&)>>;

// The argument is a file if it holds a '/' or ends in ".so". UserError where no item has that name; a file
// that cannot be loaded is a failed check, found out in a process of its own; one that changes the floating-point state
// gets a warning.
Checks verify(const PluginRegistry& registry, const std::string& file_or_name, const VerifyHooks& hooks = {});
Checks verify_item(const Item& item, const OptionValues& given = {}, const VerifyHooks& hooks = {});
Checks verify_algorithm(const Item& item, const OptionSet& options);

// Runs one check: what `body` returns is its detail, a UserError its failure.
Check run_check(const std::string& name, const std::function<std::string()>& body);
bool all_ok(const Checks& checks);
std::string format_checks(const Checks& checks);  // one line each

}  // namespace dsengine

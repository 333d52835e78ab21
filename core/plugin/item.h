// One algorithm, model, dataset, reward or kernel of a loaded plugin, its table checked and brought to this
// host's size, so that later versions of the ABI need no care elsewhere.
//
//   const Item& item = registry.find(DSE_ALGORITHM, "ppo");
//   for (const dse_option& option : item.options) fmt::print("{}\n", option.name);
//   item.algorithm().create(options.values(), &self);
//
// Strings of tables live as long as the process: libraries are never unloaded.
#pragma once
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "dsengine/abi.h"

namespace dsengine {

using ItemTable = std::variant<dse_algorithm, dse_model, dse_dataset, dse_reward, dse_kernel>;

struct Item {
  uint32_t kind = 0;  // DSE_ALGORITHM …
  std::string name, summary;
  std::vector<dse_option> options;
  ItemTable table;
  std::filesystem::path file;  // absolute
  std::string plugin, version;
  uint32_t abi_minor = 0;  // that the plugin was built for
  std::string sha256;      // of the file

  const dse_algorithm& algorithm() const { return std::get<dse_algorithm>(table); }
  const dse_model& model() const { return std::get<dse_model>(table); }
  const dse_dataset& dataset() const { return std::get<dse_dataset>(table); }
  const dse_reward& reward() const { return std::get<dse_reward>(table); }
  const dse_kernel& kernel() const { return std::get<dse_kernel>(table); }
  std::vector<std::string> architectures() const;  // of a model: entries of config.json's "architectures"
  const char* operation() const;                   // of a kernel: its name in the catalogue
  std::string label() const;                       // "algorithm 'ppo' (libdse_ppo.so)", for messages
};

// "algorithm", "model", "dataset", "reward" or "kernel".
const char* item_kind_name(uint32_t kind);

// Checks an item of a plugin of that ABI minor and brings its structs to size. UserError beginning with
// `what` where it is malformed; file, plugin, version and sha256 are left empty.
Item read_item(const dse_item& raw, uint32_t plugin_minor, const std::string& what);

}  // namespace dsengine

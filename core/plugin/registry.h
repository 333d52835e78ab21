// All plugins a run may use, by kind and name.
//
//   PluginRegistry registry(config.plugin_path, config.plugins);
//   const Item& ppo = registry.find(DSE_ALGORITHM, "ppo");  // UserError: "…; did you mean 'ppo'?"
//   const Item& model = registry.find_model("LlamaForCausalLM");
//
// Files: those listed, then every libdse_*.so of the given folders, of $DSENGINE_PLUGIN_PATH and of
// <prefix>/lib/dsengine; never the working directory. A file hides later ones of its name, which the log says.
// What was listed is opened at once, and a fault of it is an error. What was found is opened when one of its items is
// asked for (PluginIndex knows them); a broken one is remembered, and told when an item is missing. An item that two
// files have is an error naming both, once it is asked for. Any thread.
#pragma once
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "plugin/library.h"
#include "plugin/plugin_index.h"
#include "plugin/settings.h"

namespace dsengine {

// $DSENGINE_PLUGIN_PATH (colon-separated, absolute), then <prefix>/lib/dsengine.
std::vector<std::filesystem::path> default_plugin_path();

class PluginRegistry {
 public:
  // The folders of `plugin_path` must exist; those of `default_path` need not.
  explicit PluginRegistry(const std::vector<std::filesystem::path>& plugin_path,
                          const std::vector<PluginFile>& files = {},
                          const std::vector<std::filesystem::path>& default_path = default_plugin_path());

  const Item& find(uint32_t kind, const std::string& name) const;
  // The model whose `architectures` hold this entry of a config.json.
  const Item& find_model(const std::string& architecture) const;
  bool has_model(const std::string& architecture) const;
  // By name. All libraries with such an item are opened, but for those that do not outlive being opened elsewhere.
  std::vector<const Item*> items(uint32_t kind) const;
  // Kernels; those that say that they are for cards only where `card`.
  std::vector<const Item*> kernels(bool card) const;
  std::vector<const Item*> require_named(const std::string& name) const;  // of any kind; UserError if none

  // What there is, by kind and name, and which files other files hide: no library is opened for it.
  struct Listed {
    PluginIndex::Entry item;
    std::filesystem::path file;
  };
  std::vector<Listed> listing() const;
  struct Hidden {
    std::filesystem::path file, by;
  };
  const std::vector<Hidden>& hidden() const { return hidden_; }
  // One line for each file of the search path that cannot be used.
  std::vector<std::string> failures() const;
  std::vector<std::filesystem::path> opened() const;

 private:
  struct File {
    std::filesystem::path path;
    std::optional<PluginIndex> index{};
    std::optional<PluginLibrary> library{};
    std::string failure{};
  };
  void add_listed(const PluginFile& file);
  void add_folder(const std::filesystem::path& folder);
  // Fills the index of every file that has none, and failure.
  void read_indexes() const;
  std::vector<const Item*> items_that(uint32_t kind,
                                      const std::function<bool(const PluginIndex::Entry&)>& wanted) const;
  // The items of one kind (0: any) that `wanted` picks, their libraries opened. UserError where one cannot be.
  template <class Wanted>
  std::vector<const Item*> open(uint32_t kind, const Wanted& wanted) const;
  const PluginLibrary& library_of(File& file) const;
  const Item& item_of(File& file, const PluginIndex::Entry& entry) const;
  [[noreturn]] void throw_missing(const std::string& what, const std::string& near,
                                  const std::vector<std::string>& known) const;

  mutable std::mutex mutex_;
  mutable std::deque<File> files_;  // a deque: items are referred to
  std::vector<Hidden> hidden_;
  std::vector<std::filesystem::path> searched_;
};

}  // namespace dsengine

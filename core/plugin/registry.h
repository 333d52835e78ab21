// All plugins a run may use, by kind and name.
//
//   PluginRegistry registry(config.plugin_path, config.plugins);
//   const Item& ppo = registry.find(DSE_ALGORITHM, "ppo");  // UserError: "…; did you mean 'ppo'?"
//   const Item& model = registry.find_model("LlamaForCausalLM");
//
// Files: those listed, then every libdse_*.so of the given folders, of $DSENGINE_PLUGIN_PATH and of
// <prefix>/lib/dsengine; never the working directory. A file hides later ones of its name.
// A broken file that was listed is an error at once; one that was found is remembered, and told when an item
// is missing. An item that two files have is an error naming both, once it is asked for.
#pragma once
#include <deque>
#include <filesystem>
#include <string>
#include <vector>

#include "plugin/library.h"
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
  std::vector<const Item*> items(uint32_t kind) const;                    // by name
  std::vector<const Item*> require_named(const std::string& name) const;  // of any kind; UserError if none
  // One line for each file of the search path that could not be loaded.
  const std::vector<std::string>& failures() const { return failures_; }
  const std::deque<PluginLibrary>& libraries() const { return libraries_; }

 private:
  void add_listed(const PluginFile& file);
  void add_folder(const std::filesystem::path& folder);
  bool is_new(const std::filesystem::path& file) const;
  [[noreturn]] void throw_missing(const std::string& what, const std::string& near,
                                  const std::vector<std::string>& known) const;

  std::deque<PluginLibrary> libraries_;  // a deque: items are referred to
  std::vector<std::string> failures_;
  std::vector<std::string> broken_;  // file names of failures_: they hide later files too
  std::vector<std::filesystem::path> searched_;
};

}  // namespace dsengine

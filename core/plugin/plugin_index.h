// What a plugin file says it holds, known without any of its code having run in this process.
//
//   const auto index = PluginIndex::of("lib/dsengine/libdse_ppo.so");   // UserError where the file cannot be used
//   for (const auto& item : index.items) fmt::print("{} {}\n", item_kind_name(item.kind), item.name);
//
// The SDK puts it into a library as ELF notes. A library without them is opened once in a process of its own
// (dse_inspect): one that crashes, ends the process or never comes back in its constructor ends that one alone. What
// was found is kept by the file's SHA-256 in $XDG_CACHE_HOME/dsengine/plugins, else ~/.cache/….
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace dsengine {

class PluginLibrary;

inline constexpr const char* kCardKernel = "cuda";

struct PluginIndex {
  struct Entry {
    uint32_t kind;  // DSE_ALGORITHM …
    std::string name, version, summary;
    std::vector<std::string> architectures;  // of a model; of a kernel kCardKernel, where it is for cards
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> items;

  static PluginIndex of(const std::filesystem::path& file);
  static PluginIndex of(const PluginLibrary& library);
  // Only what the notes say; no items where there are none.
  static PluginIndex of_notes(const std::filesystem::path& file);
  // What dse_inspect finds, notes or not: UserError where the library cannot be opened. `anew`: the cache is not asked.
  static PluginIndex of_process(const std::filesystem::path& file, bool anew = false);

  Json to_json() const;
  static PluginIndex from_json(const Json& json);  // Json::exception where it is none
};

}  // namespace dsengine

#include "plugin/registry.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "base/json.h"
#include "base/own_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

const Item& only_one(const std::vector<const Item*>& found, const std::string& what) {
  DSE_CHECK_USER(found.size() == 1, "{} is in two plugins; remove one of the files: {}, {}", what,
                 found[0]->file.string(), found[1]->file.string());
  return *found[0];
}

template <class Range>
std::string joined(const Range& range) {
  return fmt::format("{}", fmt::join(range, ", "));
}

}  // namespace

std::vector<fs::path> default_plugin_path() {
  std::vector<fs::path> folders;
  const char* variable = std::getenv("DSENGINE_PLUGIN_PATH");
  std::string_view rest = variable ? variable : "";
  while (!rest.empty()) {
    const fs::path folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), folder.native().size() + 1));
    if (folder.empty()) continue;  // an empty element would mean the working directory
    DSE_CHECK_USER(folder.is_absolute(), "DSENGINE_PLUGIN_PATH: '{}' is relative; give an absolute path",
                   folder.string());
    folders.push_back(folder);
  }
  if (const auto prefix = own_prefix(); !prefix.empty()) folders.push_back(prefix / "lib/dsengine");
  return folders;
}

PluginRegistry::PluginRegistry(const std::vector<fs::path>& plugin_path, const std::vector<PluginFile>& files,
                               const std::vector<fs::path>& default_path) {
  for (const auto& file : files) add_listed(file);
  for (const auto& folder : plugin_path) {
    DSE_CHECK_USER(fs::is_directory(folder), "plugin path {}: there is no such folder; check --plugin-path",
                   folder.string());
    add_folder(folder);
  }
  for (const auto& folder : default_path) add_folder(folder);
}

// Files are one if they share their name, or are the same file under two names.
bool PluginRegistry::is_new(const fs::path& file) const {
  const std::string name = file.filename().string();
  if (std::find(broken_.begin(), broken_.end(), name) != broken_.end()) return false;
  return std::none_of(libraries_.begin(), libraries_.end(), [&](const PluginLibrary& library) {
    std::error_code error;
    return library.file().filename() == name || fs::equivalent(library.file(), file, error);
  });
}

void PluginRegistry::add_listed(const PluginFile& file) {
  PluginLibrary added(file.file, file.sha256);
  for (const auto& library : libraries_)
    if (fs::equivalent(library.file(), added.file())) return;  // listed twice
  for (const auto& item : added.items())
    for (const Item* other : items(item.kind))
      DSE_CHECK_USER(other->name != item.name, "two listed plugins have {} '{}'; list one: {}, {}",
                     item_kind_name(item.kind), item.name, other->file.string(), item.file.string());
  libraries_.push_back(std::move(added));
}

void PluginRegistry::add_folder(const fs::path& folder) {
  searched_.push_back(folder);
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("libdse_") && name.ends_with(".so")) files.push_back(fs::absolute(entry.path()));
  }
  std::sort(files.begin(), files.end());  // the order of a folder's entries is no order
  for (const auto& file : files) {
    if (!is_new(file)) continue;
    try {
      libraries_.emplace_back(file);
    } catch (const UserError& e) {
      failures_.push_back(e.what());
      broken_.push_back(file.filename().string());
    }
  }
}

std::vector<const Item*> PluginRegistry::items(uint32_t kind) const {
  std::vector<const Item*> found;
  for (const auto& library : libraries_)
    for (const auto& item : library.items())
      if (item.kind == kind) found.push_back(&item);
  std::stable_sort(found.begin(), found.end(), [](const Item* a, const Item* b) { return a->name < b->name; });
  return found;
}

std::vector<const Item*> PluginRegistry::require_named(const std::string& name) const {
  std::vector<const Item*> found;
  std::vector<std::string> known;
  for (uint32_t kind = DSE_ALGORITHM; kind <= DSE_KERNEL; ++kind)
    for (const Item* item : items(kind)) {
      known.push_back(item->name);
      if (item->name == name) found.push_back(item);
    }
  if (found.empty()) throw_missing(fmt::format("plugin item '{}'", name), nearest_name(name, known), known);
  return found;
}

void PluginRegistry::throw_missing(const std::string& what, const std::string& near,
                                   const std::vector<std::string>& known) const {
  std::string text = "no " + what;
  if (!near.empty())
    text += fmt::format("; did you mean '{}'?", near);
  else if (!known.empty())
    text += "; there are: " + joined(known);
  else {
    std::vector<std::string> folders;
    for (const auto& folder : searched_) folders.push_back(folder.string());
    text += "; give --plugin-path or set DSENGINE_PLUGIN_PATH; searched: " + joined(folders);
  }
  if (!failures_.empty()) text += fmt::format(" (failed to load: {})", fmt::join(failures_, " | "));
  throw UserError(text);
}

const Item& PluginRegistry::find(uint32_t kind, const std::string& name) const {
  const auto what = fmt::format("{} '{}'", item_kind_name(kind), name);
  std::vector<const Item*> found;
  std::vector<std::string> known;
  for (const Item* item : items(kind)) {
    known.push_back(item->name);
    if (item->name == name) found.push_back(item);
  }
  if (found.empty()) throw_missing(what, nearest_name(name, known), known);
  return only_one(found, what);
}

bool PluginRegistry::has_model(const std::string& architecture) const {
  const auto models = items(DSE_MODEL);
  return std::any_of(models.begin(), models.end(), [&](const Item* item) {
    const auto names = item->architectures();
    return std::find(names.begin(), names.end(), architecture) != names.end();
  });
}

const Item& PluginRegistry::find_model(const std::string& architecture) const {
  std::vector<const Item*> found;
  std::vector<std::string> known;
  for (const Item* item : items(DSE_MODEL)) {
    const auto names = item->architectures();
    known.insert(known.end(), names.begin(), names.end());
    if (std::find(names.begin(), names.end(), architecture) != names.end()) found.push_back(item);
  }
  if (found.empty()) throw_missing(fmt::format("model plugin for architecture '{}'", architecture), "", known);
  return only_one(found, fmt::format("architecture '{}'", architecture));
}

}  // namespace dsengine

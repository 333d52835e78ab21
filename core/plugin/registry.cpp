#include "plugin/registry.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "base/check.h"
#include "base/json.h"
#include "base/own_folder.h"
#include "base/printable.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

void check_one(const std::vector<PluginRegistry::Listed>& found, const std::string& what) {
  DSE_CHECK_USER(found.size() == 1, "{} is in two plugins; remove one of the files: {}, {}", what,
                 found[0].file.string(), found[1].file.string());
}

bool serves(const PluginIndex::Entry& entry, const std::string& architecture) {
  const auto& names = entry.architectures;
  return entry.kind == DSE_MODEL && std::find(names.begin(), names.end(), architecture) != names.end();
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
  folders.push_back(plugins_beside_code());
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

void PluginRegistry::add_listed(const PluginFile& file) {
  PluginLibrary added(file.file, file.sha256);
  for (const auto& other : files_)
    if (fs::equivalent(other.path, added.file())) return;  // listed twice
  for (const auto& item : added.items())
    for (const auto& other : files_)
      for (const auto& has : other.index->items)
        DSE_CHECK_USER(has.kind != item.kind || has.name != item.name,
                       "two listed plugins have {} '{}'; list one: {}, {}", item_kind_name(item.kind), item.name,
                       other.path.string(), item.file.string());
  auto index = PluginIndex::of(added);
  files_.push_back({added.file(), std::move(index), std::move(added)});
}

// Files are one if they share their name, or are the same file under two names.
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
    const auto other = std::find_if(files_.begin(), files_.end(), [&](const File& known) {
      return known.path.filename() == file.filename() || fs::equivalent(known.path, file, error);
    });
    if (other == files_.end()) {
      files_.push_back({file});
    } else if (!fs::equivalent(other->path, file, error)) {
      hidden_.push_back({file, other->path});
      spdlog::warn("plugin file={} hides={}", other->path.string(), file.string());
    }
  }
}

void PluginRegistry::read_indexes() const {
  for (auto& file : files_) {
    if (file.index || !file.failure.empty()) continue;
    try {
      file.index = PluginIndex::of(file.path);
    } catch (const UserError& e) {
      file.failure = e.what();
    }
  }
}

const PluginLibrary& PluginRegistry::library_of(File& file) const {
  if (!file.library) {
    if (!file.failure.empty()) throw UserError(file.failure);
    try {
      file.library.emplace(file.path);
    } catch (const UserError& e) {
      file.failure = e.what();
      throw;
    }
  }
  return *file.library;
}

const Item& PluginRegistry::item_of(File& file, const PluginIndex::Entry& entry) const {
  const auto& items = library_of(file).items();
  const auto item = std::find_if(items.begin(), items.end(),
                                 [&](const Item& i) { return i.kind == entry.kind && i.name == entry.name; });
  DSE_CHECK_USER(item != items.end(), "plugin {}: its ELF note names {} '{}', which it does not have; build it again",
                 file.path.string(), item_kind_name(entry.kind), entry.name);
  return *item;
}

template <class Wanted>
std::vector<const Item*> PluginRegistry::open(uint32_t kind, const Wanted& wanted) const {
  std::vector<const Item*> found;
  for (auto& file : files_) {
    if (!file.index) continue;
    for (const auto& entry : file.index->items)
      if ((kind == 0 || entry.kind == kind) && wanted(entry)) found.push_back(&item_of(file, entry));
  }
  std::stable_sort(found.begin(), found.end(), [](const Item* a, const Item* b) {
    return std::tie(a->kind, a->name) < std::tie(b->kind, b->name);
  });
  return found;
}

std::vector<const Item*> PluginRegistry::items(uint32_t kind) const {
  return items_that(kind, [](const auto&) { return true; });
}

std::vector<const Item*> PluginRegistry::kernels(bool card) const {
  return items_that(DSE_KERNEL, [card](const auto& entry) {
    return card || std::ranges::find(entry.architectures, kCardKernel) == entry.architectures.end();
  });
}

std::vector<const Item*> PluginRegistry::items_that(
    uint32_t kind, const std::function<bool(const PluginIndex::Entry&)>& wanted) const {
  const std::scoped_lock lock(mutex_);
  read_indexes();
  for (auto& file : files_) {
    if (file.library || !file.index ||
        std::none_of(file.index->items.begin(), file.index->items.end(),
                     [&](const auto& entry) { return entry.kind == kind && wanted(entry); }))
      continue;
    try {  // nobody named it: it is tried elsewhere before it may end this process
      PluginIndex::of_process(file.path);
      for (const auto& entry : file.index->items)
        if (entry.kind == kind) item_of(file, entry);
    } catch (const UserError& e) {
      file.failure = e.what();
      spdlog::warn("plugin not_used={} reason=\"{}\"", file.path.string(), e.what());
    }
  }
  for (auto& file : files_)
    if (!file.failure.empty()) file.index.reset();
  return open(kind, wanted);
}

std::vector<PluginRegistry::Listed> PluginRegistry::listing() const {
  const std::scoped_lock lock(mutex_);
  read_indexes();
  std::vector<Listed> all;
  for (const auto& file : files_)
    if (file.index)
      for (const auto& entry : file.index->items) all.push_back({entry, file.path});
  std::stable_sort(all.begin(), all.end(), [](const Listed& a, const Listed& b) {
    return std::tie(a.item.kind, a.item.name) < std::tie(b.item.kind, b.item.name);
  });
  return all;
}

std::vector<std::string> PluginRegistry::failures() const {
  const std::scoped_lock lock(mutex_);
  read_indexes();
  std::vector<std::string> lines;
  for (const auto& file : files_)
    if (!file.failure.empty()) lines.push_back(file.failure);
  return lines;
}

std::vector<fs::path> PluginRegistry::opened() const {
  const std::scoped_lock lock(mutex_);
  std::vector<fs::path> paths;
  for (const auto& file : files_)
    if (file.library) paths.push_back(file.path);
  return paths;
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
  if (const auto lines = failures(); !lines.empty())
    text += fmt::format(" (failed to load: {})", fmt::join(lines, " | "));
  throw UserError(text);
}

std::vector<const Item*> PluginRegistry::require_named(const std::string& name) const {
  std::vector<std::string> known;
  for (const auto& listed : listing()) known.push_back(listed.item.name);
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw_missing(fmt::format("plugin item '{}'", shown(name)), nearest_name(name, known), known);
  const std::scoped_lock lock(mutex_);
  return open(0, [&](const auto& entry) { return entry.name == name; });
}

const Item& PluginRegistry::find(uint32_t kind, const std::string& name) const {
  const auto what = fmt::format("{} '{}'", item_kind_name(kind), shown(name));
  std::vector<std::string> known;
  std::vector<Listed> found;
  for (auto& listed : listing()) {
    if (listed.item.kind != kind) continue;
    known.push_back(listed.item.name);
    if (listed.item.name == name) found.push_back(std::move(listed));
  }
  if (found.empty()) throw_missing(what, nearest_name(name, known), known);
  check_one(found, what);
  const std::scoped_lock lock(mutex_);
  return *open(kind, [&](const auto& entry) { return entry.name == name; })[0];
}

bool PluginRegistry::has_model(const std::string& architecture) const {
  const auto all = listing();
  return std::any_of(all.begin(), all.end(), [&](const Listed& listed) { return serves(listed.item, architecture); });
}

const Item& PluginRegistry::find_model(const std::string& architecture) const {
  std::vector<std::string> known;
  std::vector<Listed> found;
  for (auto& listed : listing()) {
    const auto& names = listed.item.architectures;
    known.insert(known.end(), names.begin(), names.end());
    if (serves(listed.item, architecture)) found.push_back(std::move(listed));
  }
  if (found.empty()) throw_missing(fmt::format("model plugin for architecture '{}'", shown(architecture)), "", known);
  check_one(found, fmt::format("architecture '{}'", shown(architecture)));
  const std::scoped_lock lock(mutex_);
  return *open(DSE_MODEL, [&](const auto& entry) { return serves(entry, architecture); })[0];
}

}  // namespace dsengine

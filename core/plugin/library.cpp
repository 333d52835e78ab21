#include "plugin/library.h"

#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cctype>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/sha256.h"
#include "plugin/elf_file.h"
#include "plugin/host.h"
#include "plugin/normalise.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEntry = "dse_plugin_entry";

// Keeps a library open until the process ends; the list itself is never destroyed, for its elements would
// unload.
boost::dll::shared_library& keep_open(boost::dll::shared_library library) {
  static std::mutex mutex;
  static auto& open = *new std::deque<boost::dll::shared_library>;
  const std::scoped_lock lock(mutex);
  return open.emplace_back(std::move(library));
}

// dlerror's text without the path, which our own line names already.
std::string loader_text(const fs::path& file) {
  const char* raw = dlerror();
  std::string text = raw ? raw : "the dynamic loader gave no reason";
  const std::string prefix = file.string() + ": ";
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  return text;
}

}  // namespace

PluginLibrary::PluginLibrary(const fs::path& file, const std::string& pinned_sha256)
    : file_(fs::absolute(file).lexically_normal()), what_("plugin " + file_.string()) {
  sha256_ = check_file(file_, pinned_sha256);
  spdlog::info("plugin open={}", file_.string());
  const FloatGuard guard(what_);
  read_plugin(enter());
}

void PluginLibrary::check_form(const fs::path& file) {
  const std::string what = "plugin " + file.string();
  std::error_code error;
  const auto status = fs::status(file, error);
  DSE_CHECK_USER(fs::exists(status), "{}: there is no such file; check the path", what);
  DSE_CHECK_USER(fs::is_regular_file(status), "{}: is not a regular file; give the library itself", what);
  const auto fault = elf_fault(file);
  DSE_CHECK_USER(fault.empty(), "{}: {}", what, fault);
}

std::string PluginLibrary::check_file(const fs::path& file, const std::string& pinned_sha256) {
  check_form(file);
  const std::string what = "plugin " + file.string();
  std::string sha256;
  try {
    sha256 = sha256_file(file);
  } catch (const UserError& e) {
    throw UserError(fmt::format("{}: {}; check its permissions", what, e.what()));
  }
  std::string pin = pinned_sha256;
  std::transform(pin.begin(), pin.end(), pin.begin(), [](unsigned char c) { return std::tolower(c); });
  DSE_CHECK_USER(pin.empty() || pin == sha256,
                 "{}: its sha256 is not the pinned one; get the right file or change the pin: {}, pinned {}", what,
                 sha256, pin);
  return sha256;
}

const dse_plugin* PluginLibrary::enter() const {
  namespace dll = boost::dll;
  boost::system::error_code error;
  // A path with a parent is opened as it stands: no decoration, no search of system folders.
  dll::shared_library opened(dll::fs::path(file_.string()), dll::load_mode::rtld_now | dll::load_mode::rtld_local,
                             error);
  DSE_CHECK_USER(!error, "{}: cannot be loaded; install what it lacks or rebuild it: {}", what_, loader_text(file_));
  const auto& library = keep_open(std::move(opened));
  DSE_CHECK_USER(library.has(kEntry), "{}: exports no {}; is it a dsengine plugin?", what_, kEntry);
  const dse_plugin* plugin = nullptr;
  call_plugin(what_, library.get<dse_status(const dse_host*, const dse_plugin**)>(kEntry), &host_table(), &plugin);
  DSE_CHECK_USER(plugin, "{}: its entry gave no table; set *plugin before returning DSE_OK", what_);
  return plugin;
}

void PluginLibrary::read_plugin(const dse_plugin* raw) {
  // The version comes first: the rest of another major's table may mean anything.
  DSE_CHECK_USER(raw->struct_size >= offsetof(dse_plugin, abi_minor) + sizeof raw->abi_minor,
                 "{}: its table's struct_size is {}; set it to sizeof(dse_plugin)", what_, raw->struct_size);
  DSE_CHECK_USER(raw->abi_major == DSE_ABI_MAJOR, "{}: was built for ABI {}.{}, this host has {}.{}; rebuild it", what_,
                 raw->abi_major, raw->abi_minor, DSE_ABI_MAJOR, DSE_ABI_MINOR);
  DSE_CHECK_USER(raw->abi_minor <= DSE_ABI_MINOR,
                 "{}: was built for ABI {}.{}, this host has {}.{}; install a newer dsengine or rebuild it", what_,
                 raw->abi_major, raw->abi_minor, DSE_ABI_MAJOR, DSE_ABI_MINOR);
  const auto plugin = read_struct<dse_plugin>(raw, what_);
  DSE_CHECK_USER(plugin.item_count > 0, "{}: has no items; list at least one", what_);
  name_ = plugin.name ? plugin.name : "";
  version_ = plugin.version ? plugin.version : "";
  for (const auto& raw_item : read_array<dse_item>(plugin.items, plugin.item_count, what_ + ": items")) {
    Item item = read_item(raw_item, plugin.abi_minor, what_);
    DSE_CHECK_USER(std::none_of(items_.begin(), items_.end(),
                                [&](const Item& other) { return other.kind == item.kind && other.name == item.name; }),
                   "{}: has two items of one name: {} '{}'; rename one", what_, item_kind_name(item.kind), item.name);
    item.file = file_;
    item.plugin = name_;
    item.version = version_;
    item.sha256 = sha256_;
    items_.push_back(std::move(item));
  }
}

}  // namespace dsengine

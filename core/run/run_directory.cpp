#include "run/run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>

#include "base/check.h"
#include "base/directory.h"
#include "base/json.h"
#include "base/sha256.h"
#include "files/atomic_directory.h"
#include "run/config_print.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

using Settings = std::map<std::string, std::string>;

// Keys that change how a run is watched and kept, not what it computes. threads and device change rounding at most,
// with dtype = "auto" that of bfloat16; of a longer stage the steps that were done are the first.
constexpr std::array<std::string_view, 21> kFreeKeys = {
    "output_dir", "resume",          "log_level",        "log_every",          "plugin_path",
    "threads",    "epochs",          "checkpoint_every", "keep_checkpoints",   "tensorboard",
    "max_steps",  "memory_limit",    "offload.moments",  "offload.gradients",  "offload.average",
    "device",     "offload.weights", "offload.frozen",   "rollout.keep_cache", "collective_timeout",
    "zero_stage"};

Settings parse_settings(const std::string& text) {
  Settings settings;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (const auto at = line.find(" = "); at != std::string::npos) settings[line.substr(0, at)] = line.substr(at + 3);
  return settings;
}

Settings compared_settings(const std::string& text) {
  Settings settings = parse_settings(text);
  for (const auto key : kFreeKeys) settings.erase(std::string(key));
  // As of a run that was begun when there was no such key.
  if (const auto dtype = settings.find("dtype"); dtype != settings.end() && dtype->second == "\"auto\"")
    settings.erase(dtype);
  return settings;
}

fs::path settings_file(const fs::path& stage) { return stage / "settings.txt"; }

void check_unchanged(const fs::path& stage_path, const std::string& now) {
  if (!fs::exists(settings_file(stage_path)) || !has_results(stage_path)) return;
  const std::string before = read_text(settings_file(stage_path));
  constexpr size_t kShown = 5;
  auto changed = changed_settings(before, now);
  if (const size_t more = changed.size() > kShown ? changed.size() - kShown : 0; more > 0) {
    changed.resize(kShown);
    changed.push_back(fmt::format("and {} more", more));
  }
  DSE_CHECK_USER(changed.empty(),
                 "{} was begun with other settings, by {} ({}): go back to them, delete that folder, or choose another "
                 "output_dir",
                 stage_path.string(), settings_file(stage_path).string(), fmt::join(changed, "; "));
}

void warn_of_threads(const fs::path& stage_path, const std::string& now) {
  if (!has_results(stage_path)) return;
  const std::string was = parse_settings(read_text(settings_file(stage_path)))["threads"];
  const std::string is = parse_settings(now)["threads"];
  if (was != is)
    spdlog::warn("threads_changed stage={} before={} now={}: results may differ in rounding",
                 stage_path.filename().string(), was, is);
}

}  // namespace

std::vector<std::string> changed_settings(const std::string& before, const std::string& now) {
  const Settings old_settings = compared_settings(before), new_settings = compared_settings(now);
  const auto value_in = [](const Settings& settings, const std::string& key) -> std::string {
    const auto found = settings.find(key);
    return found == settings.end() ? "(absent)" : found->second;
  };
  Settings keys = old_settings;
  keys.insert(new_settings.begin(), new_settings.end());
  std::vector<std::string> changed;
  for (const auto& [key, _] : keys) {
    const std::string was = value_in(old_settings, key), is = value_in(new_settings, key);
    if (was != is) changed.push_back(fmt::format("{}: {} -> {}", key, was, is));
  }
  return changed;
}

std::string settings_fingerprint(const std::string& settings) {
  std::string text;
  for (const auto& [key, value] : compared_settings(settings)) text += key + " = " + value + "\n";
  return sha256_hex(text);
}

RunDirectory::RunDirectory(const RunConfig& config, Changes changes, bool writes)
    : path_(config.output_dir), changes_(changes), writes_(writes) {
  if (writes_) make_directories(path_, "output_dir"), lock();
  try {
    if (writes_) remove_leftovers(path_);
    const bool used = std::any_of(config.stages.begin(), config.stages.end(),
                                  [&](const auto& stage) { return has_results(path_ / stage.name); });
    DSE_CHECK_USER(config.resume != Resume::never || !used,
                   "output_dir {} holds a run already: choose another, delete it, or set resume = \"auto\"",
                   path_.string());
    for (const StageConfig& stage : config.stages) check_unchanged(path_ / stage.name, stage_settings(config, stage));
    if (writes_) atomic_write_file(config_file(), config.resolved);
  } catch (...) {
    if (writes_) close(lock_);
    throw;
  }
}

RunDirectory::~RunDirectory() {
  if (writes_) close(lock_);
}

void RunDirectory::lock() {
  const fs::path file = path_ / "lock";
  lock_ = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  DSE_CHECK_USER(lock_ >= 0, "cannot write in output_dir {}: {}", path_.string(), std::strerror(errno));
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(lock_);
    DSE_CHECK_USER(error == EWOULDBLOCK, "cannot lock {}: {}", file.string(), std::strerror(error));
    throw UserError(fmt::format("output_dir {} is in use by process {}: wait for it, or choose another output_dir",
                                path_.string(), read_text(file)));
  }
  // The lock goes with the process, however that ends; the file stays and says who holds it.
  const std::string pid = std::to_string(getpid());
  const bool written = ftruncate(lock_, 0) == 0 && pwrite(lock_, pid.data(), pid.size(), 0) > 0;
  if (!written) spdlog::warn("lock_not_named file={}", file.string());
}

StageDirectory RunDirectory::open_stage(const RunConfig& config, const StageConfig& stage) const {
  const fs::path folder = path_ / stage.name;
  if (writes_) {
    make_directories(folder);
    remove_leftovers(folder);
    if (fs::exists(folder / "checkpoints")) remove_leftovers(folder / "checkpoints");
  }
  const std::string settings = stage_settings(config, stage);
  check_unchanged(folder, settings);
  const fs::path file = settings_file(folder);
  if (fs::exists(file)) warn_of_threads(folder, settings);
  // A stage is opened by every later one that asks for its outputs.
  if (writes_ && (!fs::exists(file) || read_text(file) != settings)) atomic_write_file(file, settings);
  return StageDirectory(folder, settings_fingerprint(settings), changes_, writes_);
}

}  // namespace dsengine

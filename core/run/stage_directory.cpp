#include "run/stage_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/printable.h"
#include "base/regular_file.h"
#include "base/sha256.h"
#include "files/atomic_directory.h"
#include "files/entries.h"
#include "files/output_file.h"
#include "files/sealed.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

// What of a stage's folder is no output, or watched over elsewhere.
constexpr std::array<std::string_view, 5> kNoOutputs = {"checkpoints", "tensorboard", "settings.txt", "inputs.json",
                                                        "done.json"};

fs::path inputs_file(const fs::path& stage) { return stage / "inputs.json"; }
fs::path done_file(const fs::path& stage) { return stage / "done.json"; }

// A stage's outputs: name in its folder -> SHA-256, or an object of such for a folder.
Json output_hashes(const fs::path& stage) {
  Json outputs = Json::object();
  for (const auto& entry : entries_of(stage)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || std::count(kNoOutputs.begin(), kNoOutputs.end(), name) > 0) continue;
    if (entry.is_directory())
      outputs[name] = file_hashes(entry.path());
    else
      outputs[name] = sha256_file(entry.path());
  }
  return outputs;
}

// done.json, checked for what every reader of it needs.
Json read_done(const fs::path& stage) try {
  const Json done = read_sealed(done_file(stage));
  DSE_CHECK_USER(done.contains("summary") && done.contains("settings_sha256") && done.contains("outputs") &&
                     done["outputs"].is_object(),
                 "{} is not a stage's done.json", done_file(stage).string());
  return done;
} catch (const ReadError&) {
  throw;
} catch (const UserError& error) {
  throw UserError(error_line("{}: bring it back, or delete {} to run the stage again", error.what(), stage.string()));
}

// How an input that `before` and `now` describe differs: the files that are others, else the input as a whole.
std::string difference(const std::string& name, const Json& before, const Json& now) {
  std::vector<std::string> files;
  const auto listed = [](const Json& input) { return input.value("files", Json::object()); };
  const Json old_files = listed(before), new_files = listed(now);
  for (const auto& [file, hash] : new_files.items())
    if (old_files.contains(file) && old_files[file] != hash) files.push_back(file);
  const std::string from = now.value("from", "");
  return fmt::format("{}{}{}", name, from.empty() ? "" : fmt::format(" ({})", from),
                     files.empty() ? "" : fmt::format(": {}", fmt::join(files, ", ")));
}

}  // namespace

bool has_results(const fs::path& stage) {
  const fs::path checkpoints = stage / "checkpoints";
  return fs::exists(done_file(stage)) || (fs::exists(checkpoints) && !entries_of(checkpoints).empty());
}

StageDirectory::Handle::~Handle() { ::close(descriptor); }

StageDirectory::StageDirectory(fs::path path, std::string fingerprint, Changes changes, bool writes)
    : path_(std::move(path)), fingerprint_(std::move(fingerprint)), changes_(changes), writes_(writes) {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DSE_CHECK_USER(descriptor >= 0, "cannot open {}: {}", path_.string(), std::strerror(errno));
  handle_ = std::make_shared<const Handle>(descriptor);
}

std::optional<Json> StageDirectory::summary() const {
  if (!fs::exists(done_file(path_))) return std::nullopt;
  const Json done = read_done(path_);
  DSE_CHECK_USER(done["settings_sha256"] == fingerprint_,
                 "{} is of a stage with other settings: delete {} to run the stage again", done_file(path_).string(),
                 path_.string());
  return done["summary"];
}

void StageDirectory::finish(const Json& summary) const {
  if (!writes_) return;
  const Json done = {{"settings_sha256", fingerprint_}, {"summary", summary}, {"outputs", output_hashes(path_)}};
  atomic_write_file(done_file(path_), sealed_text(done));
}

void StageDirectory::reopen() const {
  if (!writes_) return;
  std::error_code error;
  fs::remove(done_file(path_), error);
  DSE_CHECK_USER(!error, "cannot remove {}: {}", done_file(path_).string(), error.message());
  sync_path(path_);
}

Json StageDirectory::outputs() const { return read_done(path_)["outputs"]; }

std::optional<std::string> changed_output(const fs::path& stage) {
  const Json outputs = read_done(stage)["outputs"];
  for (const auto& [name, hashes] : outputs.items()) {
    if (hashes.is_object() && !fs::exists(stage / name)) continue;
    const auto found =
        hashes.is_object() ? changed_file(stage / name, hashes) : changed_file(stage, Json{{name, hashes}});
    if (found) return found;
  }
  return std::nullopt;
}

void StageDirectory::check_outputs() const {
  const auto found = changed_output(path_);
  if (!found) return;
  changed(*found);
  finish(read_done(path_)["summary"]);  // what is there now is what later stages begin with
}

// What check_inputs wrote; nothing where changes are accepted and it is gone or damaged.
std::optional<Json> StageDirectory::remembered_inputs() const {
  const fs::path file = inputs_file(path_);
  if (!fs::exists(file)) return changed(fmt::format("{} is missing", file.string())), std::nullopt;
  try {
    return read_sealed(file);
  } catch (const ReadError&) {
    throw;
  } catch (const UserError& error) {
    return changed(error.what()), std::nullopt;
  }
}

void StageDirectory::check_inputs(const Json& inputs) const {
  const fs::path file = inputs_file(path_);
  Json all = inputs;
  if (has_results(path_)) {
    const auto before = remembered_inputs();
    if (before) all = *before;
    std::vector<std::string> others;
    for (const auto& [name, now] : inputs.items()) {
      const Json was = all.value(name, Json::object());
      if (was.value("sha256", "") != now.value("sha256", "")) others.push_back(difference(name, was, now));
      all[name] = now;
    }
    if (before && others.empty()) return;
    if (before) changed(fmt::format("{} was begun with another {}", path_.string(), fmt::join(others, "; another ")));
  }
  if (writes_) atomic_write_file(file, sealed_text(all));
}

void StageDirectory::changed(const std::string& what) const {
  DSE_CHECK_USER(changes_ == Changes::accepted,
                 "{}: bring back what was there, delete {} to train the stage anew, or go on with --accept-changes",
                 what, path_.string());
  spdlog::warn("change_accepted what=\"{}\" note=\"the results are not those of a run without it\"", what);
}

void StageDirectory::check_present() const {
  struct stat opened {
  }, named{};
  const bool present = fstat(handle_->descriptor, &opened) == 0 && opened.st_nlink > 0 &&
                       stat(path_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
                       opened.st_dev == named.st_dev;
  DSE_CHECK_USER(present, "{} was removed or replaced while the run was in progress: its results are lost",
                 path_.string());
}

}  // namespace dsengine

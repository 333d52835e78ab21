#include "rl/checkpoint.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/sha256.h"
#include "files/atomic_directory.h"
#include "files/entries.h"
#include "files/safetensors.h"
#include "files/sealed.h"
#include "param/placement.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

constexpr int kFormat = 3;
constexpr const char* kManifest = "manifest.json";
constexpr std::string_view kName = "step-";

enum class Access { shapes, read, write };

// Calls f(name, dense tensor) for everything a role's file holds, in the coordinates of placement.h. To write: what f
// leaves in the tensors is the role's. shapes: moments have no values.
template <class F>
void for_each_tensor(const Role& role, Access access, Communicator& ranks, const F& f) {
  const auto& units = role.optimizer->units();
  const auto add = [&](const char* what, size_t unit, const at::Tensor& span) {
    const auto placed = access == Access::write ? write_placed : read_placed;
    placed(*units[unit], span,
           [&](const std::string& place, const at::Tensor& rows) { f(what + ("/" + place), rows); });
  };
  for (size_t u = 0; u < units.size(); ++u) {
    add("weights", u, units[u]->trained_flat());
    switch (access) {
      case Access::shapes:
        role.optimizer->shapes_of_moments(u, f);
        break;
      case Access::read:
        role.optimizer->read_moments(u, ranks, f);
        break;
      case Access::write:
        role.optimizer->write_moments(u, f);
    }
    if (!role.average.empty()) add("average", u, role.average[u]);
    if (access == Access::write) units[u]->settle();
  }
}

Dtype dtype_of(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return Dtype::F32;
    case at::kBFloat16:
      return Dtype::BF16;
    case at::kByte:
      return Dtype::U8;
    default:
      DSE_CHECK(false, "a tensor of another type");
  }
}

std::span<std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<std::byte*>(t.data_ptr()), size_t(t.nbytes())};
}

// The algorithm's state is bytes; JSON wants text.
std::string to_hex(const std::string& bytes) {
  std::string hex;
  for (const unsigned char c : bytes) hex += fmt::format("{:02x}", c);
  return hex;
}
std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += char(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// By step. A folder of another name is none of ours.
std::map<int64_t, fs::path> checkpoints_in(const fs::path& folder) {
  std::map<int64_t, fs::path> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : entries_of(folder)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    const char* const end = name.data() + name.size();
    if (!entry.is_directory() || !name.starts_with(kName)) continue;
    const auto [parsed, error] = std::from_chars(name.data() + kName.size(), end, step);
    if (error == std::errc() && parsed == end) found[step] = entry.path();
  }
  return found;
}

void prune(const fs::path& folder, int64_t keep) {
  auto all = checkpoints_in(folder);
  for (; int64_t(all.size()) > keep; all.erase(all.begin())) try {
      remove_directory(all.begin()->second);
    } catch (const UserError& error) {
      spdlog::warn("checkpoint_not_removed path={} reason=\"{}\"", all.begin()->second.string(), error.what());
    }
  try {
    remove_leftovers(folder);  // of a removal that failed half-way
  } catch (const UserError& error) {
    spdlog::warn("leftovers_not_removed path={} reason=\"{}\"", folder.string(), error.what());
  }
}

// The checkpoint is whole, but it is not for this program or this stage: no older one mends that.
class NotOurs : public UserError {
 public:
  using UserError::UserError;
};

// A checkpoint's sealed manifest. UserError: it is damaged.
Json read_manifest(const fs::path& path, const StageDirectory& stage) {
  const Json raw = read_json(path / kManifest);
  const auto older = [&](int format) {
    return NotOurs(fmt::format("{}: checkpoint format {} is of an older version, this one reads {}: delete {}",
                               path.string(), format, kFormat, stage.path().string()));
  };
  if (raw.is_object() && !raw.contains("sha256") && raw.value("format", Json()) == 1) throw older(1);
  Json manifest = read_sealed(path / kManifest);
  if (manifest.value("format", Json()) == 2) throw older(2);
  if (manifest.value("format", Json()) != kFormat)
    throw NotOurs(fmt::format("{}: checkpoint format {} is not known to this version", path.string(),
                              manifest.value("format", Json()).dump()));
  if (manifest.value("stage", "") != stage.path().filename().string() ||
      manifest.value("settings_sha256", "") != stage.fingerprint())
    throw NotOurs(fmt::format("{} is of another stage or of other settings: delete it", path.string()));
  return manifest;
}

// The manifest, its own files compared with their hashes. UserError: it is damaged.
FoundCheckpoint read_checkpoint(const fs::path& path, int64_t step, const StageDirectory& stage) {
  FoundCheckpoint found{path, {}, read_manifest(path, stage)};
  const Json& manifest = found.manifest;
  auto& state = found.state;
  try {
    state.step = manifest.at("step"), state.max_steps = manifest.at("max_steps"), state.epochs = manifest.at("epochs");
    state.metrics_offset = manifest.at("metrics").at("bytes"), state.eval_offset = manifest.at("eval").at("bytes");
    state.algorithm_state = from_hex(manifest.at("algorithm_state"));
    state.environment = manifest.at("environment");
    DSE_CHECK_USER(state.step == step && step >= 1, "{} is of step {}", (path / kManifest).string(), state.step);
    if (const auto changed = changed_file(path, manifest.at("files"))) user_error(*changed);
  } catch (const Json::exception& e) {
    throw UserError(fmt::format("{}: not a checkpoint of this program: {}", (path / kManifest).string(), e.what()));
  }
  return found;
}

void check_log(const FoundCheckpoint& checkpoint, const char* name, const fs::path& file, const StageDirectory& stage) {
  const Json& log = checkpoint.manifest.at(name);
  const uint64_t bytes = log.at("bytes");
  if (sha256_file(file, bytes) != log.at("sha256"))
    stage.changed(fmt::format("the first {} bytes of {} have changed since {} was written", bytes, file.string(),
                              checkpoint.path.string()));
}

}  // namespace

void save_checkpoint(const StageDirectory& stage, int64_t keep, const StageState& state, const Roles& roles,
                     Communicator& ranks) {
  if (!stage.writes())
    return roles.each_trained([&](const RoleEntry&, const Role& role) {
      if (role.optimizer->cut()) for_each_tensor(role, Access::read, ranks, [](const auto&, const auto&) {});
    });
  const fs::path folder = stage.checkpoints();
  stage.check_present();
  AtomicDirectory directory(folder / fmt::format("{}{:08}", kName, state.step));
  Json in_manifest = Json::object();
  roles.each_trained([&](const RoleEntry& entry, const Role& role) {
    std::vector<TensorDeclaration> tensors;
    for_each_tensor(role, Access::shapes, ranks, [&](const std::string& tensor, const at::Tensor& t) {
      tensors.push_back({tensor, dtype_of(t), t.sizes().vec()});
    });
    SafetensorsWriter writer(directory.path() / (std::string(entry.name) + ".safetensors"), tensors);
    for_each_tensor(role, Access::read, ranks, [&](const std::string& tensor, const at::Tensor& t) {
      writer.write(tensor, bytes_of(on_host(t)));
    });
    writer.close();
    in_manifest[entry.name] = Json{{"optimizer_steps", role.optimizer->steps()}};
  });
  const auto log = [](const fs::path& file, uint64_t bytes) {
    return Json{{"bytes", bytes}, {"sha256", sha256_file(file, bytes)}};
  };
  const Json manifest{{"format", kFormat},
                      {"stage", stage.path().filename().string()},
                      {"settings_sha256", stage.fingerprint()},
                      {"step", state.step},
                      {"max_steps", state.max_steps},
                      {"epochs", state.epochs},
                      {"metrics", log(stage.metrics_file(), state.metrics_offset)},
                      {"eval", log(stage.eval_file(), state.eval_offset)},
                      {"algorithm_state", to_hex(state.algorithm_state)},
                      {"environment", state.environment},
                      {"roles", in_manifest},
                      {"files", file_hashes(directory.path())}};
  write_text(directory.path() / kManifest, sealed_text(manifest));
  directory.commit();
  prune(folder, keep);
}

std::optional<FoundCheckpoint> newest_checkpoint(const StageDirectory& stage) {
  const auto all = checkpoints_in(stage.checkpoints());
  std::string damage;
  std::vector<fs::path> damaged;
  std::optional<FoundCheckpoint> found;
  for (auto it = all.rbegin(); it != all.rend() && !found; ++it) {
    const auto& [step, path] = *it;
    try {
      found = read_checkpoint(path, step, stage);
    } catch (const NotOurs&) {
      throw;
    } catch (const UserError& error) {
      damage += (damage.empty() ? "" : "; ") + std::string(error.what());
      damaged.push_back(path);
    }
  }
  DSE_CHECK_USER(found || damaged.empty(), "no checkpoint of {} is whole ({}): delete {} to train the stage anew",
                 stage.path().filename().string(), damage, stage.path().string());
  for (const auto& path : damaged) {
    const fs::path aside = path.parent_path() / ("damaged-" + path.filename().string());
    std::error_code error;
    fs::remove_all(aside, error);
    fs::rename(path, aside, error);
    DSE_CHECK_USER(!error, "cannot rename {}: {}", path.string(), error.message());
  }
  if (!damaged.empty())
    spdlog::warn("checkpoint_damaged reason=\"{}\" note=\"going on from {}; the damaged one is renamed to damaged-…\"",
                 damage, found->path.string());
  if (found) {
    check_log(*found, "metrics", stage.metrics_file(), stage);
    check_log(*found, "eval", stage.eval_file(), stage);
  }
  return found;
}

FoundCheckpoint checkpoint_of(const StageDirectory& stage, int64_t step) {
  return read_checkpoint(stage.checkpoints() / fmt::format("{}{:08}", kName, step), step, stage);
}

void prune_checkpoints(const StageDirectory& stage, int64_t keep) { prune(stage.checkpoints(), keep); }

void load_checkpoint(const FoundCheckpoint& checkpoint, const Roles& roles) {
  const fs::path& path = checkpoint.path;
  try {
    roles.each_trained([&](const RoleEntry& entry, Role& role) {
      const std::string name = entry.name;
      const SafetensorsFile file(path / (name + ".safetensors"));
      for_each_tensor(role, Access::write, alone(), [&](const std::string& tensor, const at::Tensor& t) {
        const TensorEntry* found = file.find(tensor);
        DSE_CHECK_USER(found && found->dtype == dtype_of(t) && found->shape == t.sizes().vec(),
                       "{}: {} of {} does not fit the model of this run", path.string(), tensor, name);
        const auto from = file.bytes(*found);
        edit_on_host(t, [&](const at::Tensor& here) { std::memcpy(bytes_of(here).data(), from.data(), from.size()); });
      });
      role.optimizer->set_steps(checkpoint.manifest.at("roles").at(name).at("optimizer_steps"));
    });
  } catch (const Json::exception& e) {
    throw UserError(fmt::format("{}: not a checkpoint of this program: {}", (path / kManifest).string(), e.what()));
  }
}

}  // namespace dsengine

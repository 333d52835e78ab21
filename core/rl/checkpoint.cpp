#include "rl/checkpoint.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "files/atomic_directory.h"
#include "files/safetensors.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

constexpr int kFormat = 1;

struct NamedRole {
  const char* name;
  Role* role;
};

std::vector<NamedRole> trained_roles(Roles& roles) {
  std::vector<NamedRole> result;
  const auto add = [&](const char* name, std::shared_ptr<Role>& role) {
    if (role && role->optimizer) result.push_back({name, &*role});
  };
  add("actor", roles.actor), add("critic", roles.critic), add("reward", roles.reward);
  return result;
}

// Calls f(name, flat tensor) for everything a role's file holds.
template <class F>
void for_each_tensor(const Role& role, F&& f) {
  const auto& units = role.optimizer->units();
  for (size_t u = 0; u < units.size(); ++u) {
    f("weights/" + units[u]->name(), units[u]->trained_flat());
    f("first_moment/" + units[u]->name(), role.optimizer->first_moments()[u]);
    f("second_moment/" + units[u]->name(), role.optimizer->second_moments()[u]);
    if (!role.average.empty()) f("average/" + units[u]->name(), role.average[u]);
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

std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

void save_checkpoint(const fs::path& folder, int64_t keep, const StageState& state, Roles& roles) {
  AtomicDirectory directory(folder / fmt::format("step-{:08}", state.step));
  Json manifest{{"format", kFormat},
                {"step", state.step},
                {"metrics_offset", state.metrics_offset},
                {"eval_offset", state.eval_offset},
                {"algorithm_state", to_hex(state.algorithm_state)},
                {"environment", state.environment},
                {"roles", Json::object()}};
  for (const auto& [name, role] : trained_roles(roles)) {
    std::vector<TensorDeclaration> tensors;
    for_each_tensor(*role, [&](const std::string& tensor, const at::Tensor& t) {
      tensors.push_back({tensor, Dtype::F32, {t.numel()}});
    });
    SafetensorsWriter writer(directory.path() / (std::string(name) + ".safetensors"), tensors);
    for_each_tensor(*role, [&](const std::string& tensor, const at::Tensor& t) { writer.write(tensor, bytes_of(t)); });
    writer.close();
    manifest["roles"][name] = Json{{"optimizer_steps", role->optimizer->steps()}, {"base", role->base_sha256}};
  }
  write_text(directory.path() / "manifest.json", manifest.dump(2) + "\n");
  directory.commit();
  auto all = checkpoints_in(folder);
  for (size_t i = 0; i + size_t(keep) < all.size(); ++i) {
    std::error_code error;
    fs::remove_all(all[i], error);
    if (error) spdlog::warn("checkpoint_not_removed path={} reason=\"{}\"", all[i].string(), error.message());
  }
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  const auto all = checkpoints_in(folder);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

StageState load_checkpoint(const fs::path& checkpoint, Roles& roles) {
  const Json manifest = read_json(checkpoint / "manifest.json");
  StageState state;
  try {
    DSE_CHECK_USER(manifest.at("format") == kFormat, "{}: checkpoint format {} is not known to this version",
                   checkpoint.string(), manifest.at("format").dump());
    state.step = manifest.at("step"), state.metrics_offset = manifest.at("metrics_offset");
    state.eval_offset = manifest.at("eval_offset");
    state.algorithm_state = from_hex(manifest.at("algorithm_state"));
    state.environment = manifest.at("environment");
    for (const auto& [name, role] : trained_roles(roles)) {
      DSE_CHECK_USER(
          manifest.at("roles").at(name).value("base", "") == role->base_sha256,
          "{}: the weights in {} are not those that the adapter was begun on: bring them back, or delete the "
          "stage's folder",
          checkpoint.string(), role->model.directory().string());
      const SafetensorsFile file(checkpoint / (std::string(name) + ".safetensors"));
      for_each_tensor(*role, [&](const std::string& tensor, const at::Tensor& t) {
        const TensorEntry* entry = file.find(tensor);
        DSE_CHECK_USER(entry && entry->end - entry->begin == uint64_t(t.nbytes()),
                       "{}: {} of {} does not fit the model of this run", checkpoint.string(), tensor, name);
        const auto from = file.bytes(*entry);
        std::memcpy(bytes_of(t).data(), from.data(), from.size());
      });
      role->optimizer->set_steps(manifest.at("roles").at(name).at("optimizer_steps"));
    }
  } catch (const Json::exception& e) {
    throw UserError(
        fmt::format("{}: not a checkpoint of this program: {}", (checkpoint / "manifest.json").string(), e.what()));
  }
  return state;
}

}  // namespace dsengine

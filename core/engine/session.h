// What everything starts from: threads, the device, plugins and the kernels among them.
//
//   set_up_threads(0);
//   const Session session(plugin_path);
//   load_model("models/tiny", session.registry(), session.kernels(), {});
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/kernels.h"
#include "plugin/registry.h"

namespace dsengine {

// Threads for computing: 0 takes the cores this process may use. Also sets what bitwise repeatability needs
// and hands the team to plugins. Once, before the first tensor.
void set_up_threads(int64_t threads);

class Session {
 public:
  // From here on the host's tensors are counted (memory/ledger.h). device: as open_device has it.
  Session(const std::vector<std::filesystem::path>& plugin_path, const std::vector<PluginFile>& files = {},
          const std::string& device = "cpu");

  const PluginRegistry& registry() const { return registry_; }
  const Kernels& kernels() const { return kernels_; }

 private:
  Device device_;
  PluginRegistry registry_;
  Kernels kernels_;
};

}  // namespace dsengine

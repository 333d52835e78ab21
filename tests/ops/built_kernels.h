// The kernels built beside the tests.
#pragma once
#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>

#include "ops/kernels.h"
#include "ops/threads.h"

namespace dsengine {

// A folder of the build or of the tests; in a bundle (scripts/gpu-bundle), which DSENGINE_BUNDLE names, of that.
inline std::filesystem::path folder_of(const char* built, const char* name) {
  const char* const bundle = std::getenv("DSENGINE_BUNDLE");
  return std::filesystem::path(bundle ? bundle : built) / name;
}

inline const PluginRegistry& built_plugins() {
  static const PluginRegistry registry({folder_of(DSE_BINARY_DIR, "lib/dsengine")});
  return registry;
}

// No kernel: the engine's reference everywhere.
inline const Kernels& reference_kernels() {
  static const Kernels none;
  return none;
}

// Those that the engine loads by default.
inline const Kernels& built_kernels() {
  static const Kernels kernels = [] {
    set_up_team(at::get_num_threads());
    return Kernels(built_plugins(), Device::host());
  }();
  return kernels;
}

}  // namespace dsengine

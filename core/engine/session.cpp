#include "engine/session.h"

#include <ATen/Context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

#include "base/processors.h"
#include "device/cuda.h"
#include "memory/card_memory.h"
#include "memory/counting_allocator.h"
#include "ops/threads.h"

namespace dsengine {

void set_up_threads(int64_t threads) {
  const int64_t cores = available_processors();
  if (threads > cores)
    spdlog::warn("threads event=capped asked={} cores={} note=\"more would only wait for each other\"", threads, cores);
  threads = threads <= 0 ? cores : std::min(threads, cores);
  // MKL would otherwise take fewer threads when it sees fit, and sum in another order.
  setenv("MKL_DYNAMIC", "FALSE", 1);
  set_up_team(int(threads));
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);  // nothing reads what it has not written
}

Session::Session(const std::vector<std::filesystem::path>& plugin_path, const std::vector<PluginFile>& files,
                 const std::string& device)
    : device_(open_device(device)), registry_(plugin_path, files), kernels_(registry_, device_) {
  count_host_memory();
  if (Card* const card = opened_card()) count_card_memory(*card);
}

}  // namespace dsengine

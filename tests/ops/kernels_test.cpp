// Which kernel serves an operation, and what is said of it.
#include "ops/kernels.h"

#include <gtest/gtest.h>

#include "base/log_watch.h"
#include "device/device.h"

namespace dsengine {
namespace {

// Models are bound while inputs are checked, in silence: the winner is named all the same, and once.
TEST(Kernels, AWinnerIsNamedWhenTheLogTakesIt) {
  const PluginRegistry registry({std::string(DSE_BINARY_DIR) + "/lib/dsengine"},
                                {{std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_counting_kernel.so", ""}}, {});
  const Kernels kernels(registry, Device::host());
  const Operation norm{.op = dse::Op::rms_norm, .dtype = at::kFloat, .in = 8, .eps = 1e-5};
  const LogWatch log;
  const auto level = [](spdlog::level::level_enum to) { spdlog::default_logger()->set_level(to); };
  level(spdlog::level::err);
  EXPECT_TRUE(kernels.bind(norm));
  EXPECT_EQ(log.text(), "");
  level(spdlog::level::info);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(kernels.bind(norm));
  EXPECT_EQ(log.count("operation=rms_norm winner=counting_rms_norm"), 1);
  // Where one kernel alone is offered, its name is a detail.
  const Operation linear{.op = dse::Op::linear, .dtype = at::kFloat, .in = 8, .out = 8};
  EXPECT_TRUE(kernels.bind(linear));
  EXPECT_EQ(log.count("winner=cpu_linear"), 0);
  level(spdlog::level::debug);
  EXPECT_TRUE(kernels.bind(linear));
  EXPECT_EQ(log.count("operation=linear winner=cpu_linear"), 1);
}

}  // namespace
}  // namespace dsengine

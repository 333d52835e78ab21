// Plugins built with -ffast-math flip a bit of the thread that loads or calls them: denormals are then read and written
// as 0. Every way into a plugin puts it back.

#include <thread>

#include "base/log_watch.h"
#include "plugin/fixtures.h"
#include "plugin/host.h"
#include "plugin/instance.h"
#include "plugin/registry.h"
#include "plugin/verify.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

bool keeps_denormals() {
  volatile float small = 1e-20f;
  return small * 1e-20f != 0;  // 1e-40: below float32's least normal number, 1.2e-38
}

float score(const char* fixture_name, const char* name) {
  const PluginRegistry registry({}, {{fixture(fixture_name), ""}}, {});
  const Item& item = registry.find(DSE_REWARD_ITEM, name);
  RewardInstance reward(item, OptionSet(item, {}));
  const dse_answer answer{sizeof(dse_answer), DSE_FINISH_EOS, "p", "r", nullptr, 0, 0, 1, 3};
  return reward.score({&answer, 1})[0];
}

TEST(FloatState, IsPutBackAfterALibraryIsOpened) {
  ASSERT_TRUE(keeps_denormals());
  const auto changes = FloatGuard::changes();
  const PluginLibrary library(fixture("flushes_on_load"));
  EXPECT_TRUE(keeps_denormals());
  EXPECT_EQ(FloatGuard::changes(), changes + 1);
}

TEST(FloatState, IsPutBackAfterACall) {
  const auto changes = FloatGuard::changes();
  EXPECT_EQ(score("flushes_in_score", "flushes_in_score"), -3.0f);
  EXPECT_TRUE(keeps_denormals());
  EXPECT_EQ(FloatGuard::changes(), changes + 1);
}

// The host's threads that run a plugin's body, and those that begin in a call, go on as they were.
TEST(FloatState, IsPutBackOnTheHostsThreads) {
  set_parallel_for([](int64_t begin, int64_t end, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
    bool kept = false;
    std::thread([&] {
      body(context, begin, end);
      kept = keeps_denormals();
    }).join();
    EXPECT_TRUE(kept);
  });
  EXPECT_EQ(score("flushes_in_threads", "flushes_in_threads"), -3.0f);
  // A plugin that flushes itself, then asks for threads.
  FloatState kept;
  std::fesetenv(FE_DFL_ENV);
  struct Flag {
    bool denormals = false;
  } flag;
  const auto of_plugin = [](Flag* to) -> dse_status {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#endif
    host_table().parallel_for(
        0, 1, 1, [](void* c, int64_t, int64_t) { static_cast<Flag*>(c)->denormals = keeps_denormals(); }, to);
    return DSE_OK;
  };
  dse_status (*call)(Flag*) = of_plugin;
  call_plugin("a plugin", call, &flag);
  EXPECT_TRUE(flag.denormals);
  EXPECT_TRUE(keeps_denormals());
  set_parallel_for(nullptr);
}

TEST(FloatState, VerifyWarnsAndTheLogNamesIt) {
  const LogWatch log;
  const PluginRegistry none({}, {}, {});
  const auto text = [&](const char* name) {
    const auto checks = verify(none, fixture(name).string());
    EXPECT_TRUE(all_ok(checks)) << format_checks(checks);
    return format_checks(checks);
  };
  const ScratchFolder folder;  // a copy: what was open before has run its constructor
  folder.copy("flushes_on_load", "libdse_copy.so");
  const auto copy = verify(none, (folder.path() / "libdse_copy.so").string());
  EXPECT_THAT(format_checks(copy), AllOf(HasSubstr("warning floating point: "), HasSubstr("-ffast-math")));
  EXPECT_THAT(text("flushes_in_score"), HasSubstr("warning floating point: "));
  EXPECT_THAT(text("plain"), Not(HasSubstr("floating point")));
  EXPECT_THAT(log.text(), AllOf(HasSubstr("plugin open=" + (folder.path() / "libdse_copy.so").string()),
                                HasSubstr("changed_by=\"plugin " + (folder.path() / "libdse_copy.so").string())));
}

}  // namespace
}  // namespace dsengine

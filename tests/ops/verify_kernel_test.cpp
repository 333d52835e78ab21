// Every kernel that the engine loads by default passes what `plugins verify` asks; wrong ones do not, in what is wrong.
#include "ops/verify_kernel.h"

#include <gmock/gmock.h>

#include "built_kernels.h"

namespace dsengine {
namespace {

using testing::HasSubstr;

TEST(VerifyKernel, ThoseOfTheEnginePass) {
  set_up_team(3);
  int tried = 0;
  for (const Item* item : built_plugins().items(DSE_KERNEL)) {
    if (item->kernel().device != DSE_CPU) continue;  // those for cards: tests/cuda
    ++tried;
    const auto checks = verify_kernel(*item);
    EXPECT_EQ(checks.size(), 2u) << item->name;
    EXPECT_TRUE(all_ok(checks)) << format_checks(checks);
  }
  EXPECT_GE(tried, 12);
  set_up_team(1);
}

Checks checks_of(const std::string& kernel) {
  static const PluginRegistry registry({}, {{std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_wrong_kernels.so", ""}},
                                       {});
  return verify_kernel(registry.find(DSE_KERNEL, kernel));
}

TEST(VerifyKernel, WrongOnesFail) {
  set_up_team(3);
  const auto wrong = checks_of("wrong_value");
  EXPECT_FALSE(wrong[0].ok);
  EXPECT_THAT(wrong[0].detail, HasSubstr("output 0 differs"));
  const auto forgets = checks_of("forgets_a_row");
  EXPECT_FALSE(forgets[0].ok);
  const auto depends = checks_of("depends_on_rows");
  EXPECT_TRUE(depends[0].ok) << format_checks(depends);
  ASSERT_EQ(depends.size(), 2u);
  EXPECT_FALSE(depends[1].ok);
  EXPECT_THAT(depends[1].detail, HasSubstr("other bits alone"));
  const auto cut = checks_of("depends_on_the_cut");
  EXPECT_TRUE(cut[0].ok) << format_checks(cut);
  EXPECT_THAT(cut[1].detail, HasSubstr("another number of threads"));
  const auto declines = checks_of("declines_all");
  EXPECT_FALSE(declines[0].ok);
  EXPECT_THAT(declines[0].detail, HasSubstr("declined all"));
  set_up_team(1);
}

}  // namespace
}  // namespace dsengine

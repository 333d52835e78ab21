// The log: on standard error, and in the run's folder as long as that takes it.
#include "run/logging.h"

#include <gmock/gmock.h>
#include <spdlog/spdlog.h>

namespace dsengine {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Logging, AFileThatCannotBeWrittenIsSaidOnceAndStandardErrorShowsAll) {
  testing::internal::CaptureStderr();
  set_up_logging({.file = "/dev/full"});
  spdlog::info("first");
  spdlog::info("second");
  set_up_logging({});
  const std::string shown = testing::internal::GetCapturedStderr();
  EXPECT_THAT(shown, HasSubstr("first"));
  EXPECT_THAT(shown, HasSubstr("second"));
  const auto said = shown.find("warning: ");
  ASSERT_NE(said, shown.npos) << shown;
  EXPECT_THAT(shown, HasSubstr("/dev/full"));
  EXPECT_EQ(shown.find("warning: ", said + 1), shown.npos) << shown;
  EXPECT_THAT(shown, Not(HasSubstr("LOG ERROR")));
}

}  // namespace
}  // namespace dsengine

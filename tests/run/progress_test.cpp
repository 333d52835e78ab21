// Progress on a terminal (a pseudo terminal here) and in a log; the log itself.
#include "run/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <spdlog/spdlog.h>

#include <regex>
#include <thread>

#include "base/check.h"
#include "base/json.h"
#include "base/log_watch.h"
#include "run/logging.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

class Terminal {
 public:
  explicit Terminal(unsigned short columns) {
    winsize size{};
    size.ws_col = columns;
    if (openpty(&mine_, &theirs_, nullptr, nullptr, &size) != 0) throw std::runtime_error("openpty");
    fcntl(mine_, F_SETFL, O_NONBLOCK);
  }
  ~Terminal() { close(mine_), close(theirs_); }
  int descriptor() const { return theirs_; }
  // All that was written: the kernel hands a terminal's bytes over a moment later.
  std::string text() const {
    std::string all;
    char buffer[8192];
    for (pollfd ready{mine_, POLLIN, 0}; poll(&ready, 1, 200) > 0;) {
      const ssize_t count = read(mine_, buffer, sizeof buffer);
      if (count <= 0) break;
      all.append(buffer, static_cast<size_t>(count));
    }
    return all;
  }

 private:
  int mine_ = -1, theirs_ = -1;
};

TEST(Duration, Text) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(123), "2m03s");
  EXPECT_EQ(duration_text(3723), "1h02m");
  EXPECT_EQ(duration_text(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(duration_text(1.0 / 0.0), "?");
}

TEST(Progress, LogsEverySoManySteps) {
  const LogWatch log;
  {
    Progress progress("ppo", 25, {.log_every = 10, .terminal = -1});
    for (int64_t step = 1; step <= 25; ++step) progress.update(step, {{"reward", 0.25 * static_cast<double>(step)}});
  }
  EXPECT_THAT(log.text(), MatchesRegex("progress name=ppo step=10 steps=25 steps_per_s=[^ ]+ left=[^ ]+ reward=2.5\n"
                                       "progress name=ppo step=20 steps=25 steps_per_s=[^ ]+ left=[^ ]+ reward=5\n"
                                       "progress name=ppo step=25 steps=25 steps_per_s=[^ ]+ reward=6.25\n"));
}

TEST(Progress, StepsBeforeAResumeDoNotCountForTheRate) {
  const LogWatch log;
  Progress progress("sft", 2000, {.first_step = 1000, .log_every = 1, .unit = "rows", .terminal = -1});
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  progress.update(1001);
  progress.finish();
  // One row in at least 0.1 s: at most 10 rows a second, so at least 99 s for the 999 left.
  std::smatch match;
  const std::string text = log.text();
  ASSERT_TRUE(std::regex_search(text, match, std::regex("rows_per_s=([0-9.e+-]+) left=([0-9]+)m")));
  EXPECT_LE(std::stod(match[1]), 10.0);
  EXPECT_GE(std::stoi(match[2]), 1);
  EXPECT_EQ(text.find('\n'), text.size() - 1);  // finish() had nothing new to say
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  Terminal terminal(200);
  const LogWatch log;
  Progress progress("ppo", 500, {.terminal = terminal.descriptor()});
  progress.update(120, {{"reward", 0.512}});
  EXPECT_THAT(terminal.text(), MatchesRegex("\r\x1b\\[Kppo 120/500 24% [^ ]+ steps/s [^ ]+ left reward=0.512"));
  for (int64_t step = 121; step < 500; ++step) progress.update(step);
  progress.update(500, {{"reward", 1}});
  progress.finish();
  const std::string text = terminal.text();
  EXPECT_THAT(text, HasSubstr("\r\x1b[Kppo 500/500 100% "));
  EXPECT_THAT(text, testing::EndsWith(" reward=1\r\n"));         // the terminal turns \n into \r\n
  EXPECT_EQ(text.find('\n'), text.size() - 1);                   // one line only
  EXPECT_LT(std::count(text.begin(), text.end(), '\x1b'), 100);  // not one drawing a step
  EXPECT_EQ(log.text(), "");
}

TEST(Progress, ALineNeverWraps) {
  Terminal terminal(20);
  { Progress("a_long_name", 500, {.terminal = terminal.descriptor()}).update(3, {{"reward", 1}}); }
  const std::string text = terminal.text();
  const auto drawn = text.rfind('K') + 1;
  EXPECT_EQ(text.size() - drawn, 19u + 2);  // 19 columns, \r\n
}

TEST(Logging, LevelAndFile) {
  const auto former = spdlog::default_logger();
  ScratchFolder folder;
  const auto file = folder.path / "log.txt";
  set_up_logging({.level = LogLevel::warning, .file = file});
  spdlog::info("step step=1");
  spdlog::warn("torn_line bytes=3");
  EXPECT_THAT(read_text(file), MatchesRegex("\\[....-..-.. ..:..:..\\....\\] warning torn_line bytes=3\n"));
  set_up_logging({.level = LogLevel::debug, .file = file});  // appends
  spdlog::debug("b=2");
  EXPECT_THAT(read_text(file), HasSubstr("bytes=3\n["));
  EXPECT_THAT(read_text(file), HasSubstr("debug b=2\n"));
  set_up_logging({.level = LogLevel::debug, .file = file, .quiet = true});
  spdlog::info("c=3");
  EXPECT_EQ(read_text(file).find("c=3"), std::string::npos);
  EXPECT_THROW(set_up_logging({.file = file / "x"}), UserError);
  spdlog::set_default_logger(former);
}

}  // namespace
}  // namespace dsengine

// metrics.jsonl: whole lines only, whatever was killed, and cut back to a checkpoint byte for byte.
#include "run/metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "base/check.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class MetricsTest : public testing::Test {
 protected:
  ScratchFolder folder_;
  fs::path file_ = folder_.path / "metrics.jsonl";
};

TEST_F(MetricsTest, ALineAnObjectInTheOrderGiven) {
  MetricsLog metrics(file_);
  metrics.append({{"stage", "ppo"}, {"step", 1}, {"loss", 0.5}});
  EXPECT_EQ(read_text(file_), "{\"stage\":\"ppo\",\"step\":1,\"loss\":0.5}\n");  // before it is closed
  metrics.append({{"step", 2}});
  EXPECT_EQ(metrics.offset(), fs::file_size(file_));
}

TEST_F(MetricsTest, NanAndInfinityBecomeNull) {
  MetricsLog metrics(file_);
  const double infinity = std::numeric_limits<double>::infinity();
  metrics.append({{"loss", std::nan("")}, {"kl", -infinity}, {"inner", {{"a", infinity}}}, {"list", {1.5, infinity}}});
  EXPECT_EQ(read_text(file_), "{\"loss\":null,\"kl\":null,\"inner\":{\"a\":null},\"list\":[1.5,null]}\n");
}

TEST_F(MetricsTest, ReopeningGoesOn) {
  { MetricsLog(file_).append({{"step", 1}}); }
  { MetricsLog(file_).append({{"step", 2}}); }
  EXPECT_EQ(read_text(file_), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(MetricsTest, ATornLastLineIsCutOnOpening) {
  write_text(file_, "{\"step\":1}\n{\"step\":2}\n{\"ste");
  MetricsLog metrics(file_);
  metrics.append({{"step", 2}});
  EXPECT_EQ(read_text(file_), "{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n");

  write_text(file_, "{\"torn");  // nothing but a torn line
  EXPECT_EQ(MetricsLog(file_).offset(), 0u);
  EXPECT_EQ(read_text(file_), "");

  // Longer than the block that the search for the line end reads.
  write_text(file_, "{\"a\":1}\n" + std::string(10000, 'x'));
  EXPECT_EQ(MetricsLog(file_).offset(), 8u);
  EXPECT_EQ(read_text(file_), "{\"a\":1}\n");
}

TEST_F(MetricsTest, TruncateRestoresTheCheckpointsBytes) {
  MetricsLog metrics(file_);
  metrics.append({{"step", 1}});
  metrics.append({{"step", 2}});
  const uint64_t checkpoint = metrics.offset();
  const std::string then = read_text(file_);
  metrics.append({{"step", 3}});
  metrics.truncate(checkpoint);
  EXPECT_EQ(read_text(file_), then);
  metrics.append({{"step", 3}});
  EXPECT_EQ(read_text(file_), then + "{\"step\":3}\n");
  metrics.truncate(0);
  EXPECT_EQ(fs::file_size(file_), 0u);
}

TEST_F(MetricsTest, TruncateRefusesAnotherFile) {
  MetricsLog metrics(file_);
  metrics.append({{"step", 1}});  // 11 bytes
  EXPECT_THROW(metrics.truncate(12), UserError);
  EXPECT_THROW(metrics.truncate(5), UserError);
  EXPECT_EQ(fs::file_size(file_), 11u);
}

TEST_F(MetricsTest, CannotOpen) {
  try {
    MetricsLog metrics(folder_.path / "none" / "metrics.jsonl");
    FAIL();
  } catch (const UserError& problem) {
    EXPECT_EQ(problem.what(),
              "cannot open " + (folder_.path / "none/metrics.jsonl").string() + ": No such file or directory");
  }
}

// A writer killed at any moment leaves lines that all parse, counted without a gap.
TEST_F(MetricsTest, KilledWriterLeavesWholeLines) {
  int64_t next = 0;
  for (int round = 0; round < 5; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      MetricsLog metrics(file_);
      for (int64_t step = next;; ++step) metrics.append({{"step", step}, {"text", std::string(200, 'x')}});
    }
    usleep(20000 + 3000 * round);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    MetricsLog reopened(file_);
    std::istringstream lines(read_text(file_));
    next = 0;
    for (std::string line; std::getline(lines, line); ++next) ASSERT_EQ(parse_json(line, "line")["step"], next);
    ASSERT_EQ(fs::file_size(file_), reopened.offset());
  }
  EXPECT_GT(next, 0);
}

}  // namespace
}  // namespace dsengine

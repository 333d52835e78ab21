#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Processors = std::optional<int64_t>;

TEST(Processors, AQuotaIsRoundedUp) {
  EXPECT_EQ(processors_of_quota("200000 100000\n"), 2);
  EXPECT_EQ(processors_of_quota("150000 100000"), 2);
  EXPECT_EQ(processors_of_quota("1000 100000"), 1);
  EXPECT_EQ(processors_of_quota("100001 100000"), 2);
  EXPECT_EQ(processors_of_quota("9223372036854775807 1"), INT64_MAX);
  EXPECT_EQ(processors_of_quota("250000\n", "100000\n"), 3);
}

TEST(Processors, WhatIsNoQuotaCountsForNothing) {
  for (const char* text : {"max 100000\n", "", "\n", "100000", "100000 0", "0 100000", "-1 100000", "1e5 100000", "a b",
                           "100000 100000 7", "99999999999999999999 1"})
    EXPECT_EQ(processors_of_quota(text), Processors()) << text;
  EXPECT_EQ(processors_of_quota("-1\n", "100000\n"), Processors());
  EXPECT_EQ(processors_of_quota("", ""), Processors());
}

// A tree as the kernel shows it.
class Groups : public testing::Test {
 protected:
  Groups() : root_(fs::temp_directory_path() / ("dse_groups_" + std::to_string(getpid()))) {
    fs::create_directories(root_);
  }
  ~Groups() override { fs::remove_all(root_); }
  void write(const fs::path& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << "\n";
  }
  Processors of(const std::string& own_groups) const { return processors_of_groups(own_groups, root_); }

 private:
  const fs::path root_;
};

TEST_F(Groups, OfVersionTwoTheLeastOnTheWayUp) {
  EXPECT_EQ(of("0::/a/b\n"), Processors());  // nothing is there
  write("a/b/cpu.max", "max 100000");
  EXPECT_EQ(of("0::/a/b\n"), Processors());
  write("a/cpu.max", "300000 100000");
  EXPECT_EQ(of("0::/a/b\n"), 3);
  EXPECT_EQ(of("0::/c\n"), Processors());
  write("a/b/cpu.max", "500000 100000");
  EXPECT_EQ(of("0::/a/b"), 3);
  write("cpu.max", "150000 100000");  // a container's own root
  EXPECT_EQ(of("0::/a/b\n"), 2);
  EXPECT_EQ(of("0::/not/here\n"), 2);
  EXPECT_EQ(of(""), Processors());
  EXPECT_EQ(of("nonsense\n0:\n"), Processors());
}

TEST_F(Groups, OfVersionOneByTheNameOfTheControllers) {
  const std::string own = "9:name=systemd:/\n5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n";
  EXPECT_EQ(of(own), Processors());
  write("cpuset/x/cpu.cfs_quota_us", "100000");  // not the controller's
  write("cpuset/x/cpu.cfs_period_us", "100000");
  write("cpu,cpuacct/x/cpu.cfs_quota_us", "-1");
  write("cpu,cpuacct/x/cpu.cfs_period_us", "100000");
  EXPECT_EQ(of(own), Processors());
  write("cpu,cpuacct/x/cpu.cfs_quota_us", "350000");
  EXPECT_EQ(of(own), 4);
  EXPECT_EQ(of("1:cpu:/x\n"), Processors());
}

TEST(Processors, ThoseThatThisProcessMayRunOn) {
  const int64_t all = available_processors();
  EXPECT_GE(all, 1);
  EXPECT_LE(all, std::max(1u, std::thread::hardware_concurrency()));
  int64_t on_one = 0;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    on_one = available_processors();
  }).join();
  EXPECT_EQ(on_one, 1);
}

}  // namespace
}  // namespace dsengine

// What memory the machine and the control groups grant, on folders like Linux's own.
#include "base/memory_size.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class MemoryGroups : public testing::Test {
 protected:
  MemoryGroups() : root_(fs::temp_directory_path() / ("dse_memory_" + std::to_string(getpid()))) {
    fs::create_directories(root_);
  }
  ~MemoryGroups() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << "\n";
  }
  std::optional<int64_t> of(const std::string& own_groups) const { return memory_of_groups(own_groups, root_); }

 private:
  const fs::path root_;
};

TEST_F(MemoryGroups, OfBothVersionsTheLeastOnTheWayUp) {
  EXPECT_FALSE(of("0::/a/b\n"));  // nothing is there
  write("a/b/memory.max", "max");
  EXPECT_FALSE(of("0::/a/b\n"));
  write("a/memory.max", "8589934592");
  EXPECT_EQ(of("0::/a/b\n"), int64_t{8} << 30);
  write("a/b/memory.max", "1073741824");
  EXPECT_EQ(of("0::/a/b\n"), int64_t{1} << 30);
  EXPECT_FALSE(of("0::/c\n"));
  write("memory/d/memory.limit_in_bytes", "2147483648");
  EXPECT_EQ(of("5:memory:/d\n"), int64_t{2} << 30);
  EXPECT_FALSE(of("5:cpu:/d\n"));
}

TEST(MemorySize, IsNoMoreThanTheMachinesAndMoreThanTheProcessHas) {
  const int64_t machine = int64_t(sysconf(_SC_PHYS_PAGES)) * int64_t(sysconf(_SC_PAGESIZE));
  EXPECT_LE(available_memory(), machine);
  EXPECT_GT(resident_memory(), 1 << 20);
  EXPECT_LT(resident_memory(), machine);
}

}  // namespace
}  // namespace dsengine

// What stands in a file's place is named at once, and a read that fails is never the end of a text.
#include "base/regular_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/check.h"
#include "base/json.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RegularFileTest : public ::testing::Test {
 protected:
  static std::string refusal(const fs::path& path, uint64_t most = kMostTextBytes) {
    try {
      read_text(path, most);
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path.string()));
      return error.what();
    }
    return "read";
  }

  ScratchFolder scratch_;
  const fs::path folder_ = scratch_.path;
};

TEST_F(RegularFileTest, ReadsTheWholeOfAFile) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100'000}}) {
    write_text(folder_ / "a", std::string(size, 'x'));
    EXPECT_EQ(read_text(folder_ / "a", kMostTextBytes).size(), size);
  }
  write_text(folder_ / "a", std::string("x\0y", 3));
  EXPECT_EQ(read_text(folder_ / "a"), std::string("x\0y", 3));
  fs::create_symlink("a", folder_ / "link");  // as Hugging Face's cache has them
  EXPECT_EQ(read_text(folder_ / "link"), std::string("x\0y", 3));
}

TEST_F(RegularFileTest, ReadsAFileThatTellsNoSize) {
  EXPECT_THAT(read_text("/proc/self/status", kMostTextBytes), HasSubstr("Pid:"));
}

TEST_F(RegularFileTest, NamesWhatIsNoFile) {
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  fs::create_symlink("loop", folder_ / "loop");
  fs::create_symlink("/nowhere", folder_ / "lost");
  EXPECT_THAT(refusal(folder_ / "pipe"), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal("/dev/zero"), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal(folder_), HasSubstr("directory"));
  EXPECT_THAT(refusal(folder_ / "loop"), HasSubstr("symbolic links"));
  EXPECT_THAT(refusal(folder_ / "lost"), HasSubstr("No such file"));
  EXPECT_THAT(refusal(folder_ / "nothing"), HasSubstr("No such file"));
}

// The first page of a process' memory is not mapped: a regular file whose read fails.
TEST_F(RegularFileTest, AReadThatFailsIsNoEnd) { EXPECT_THAT(refusal("/proc/self/mem"), HasSubstr("Input/output")); }

TEST_F(RegularFileTest, HasALimit) {
  write_text(folder_ / "a", std::string(101, 'x'));
  EXPECT_EQ(refusal(folder_ / "a", 101), "read");
  EXPECT_THAT(refusal(folder_ / "a", 100), HasSubstr("101 bytes"));
  EXPECT_THAT(refusal("/proc/self/status", 10), HasSubstr("more than the 10 bytes"));
}

TEST_F(RegularFileTest, ALinkToNothingIsNotAbsent) {
  EXPECT_FALSE(file_exists(folder_ / "nothing"));
  EXPECT_FALSE(file_exists(folder_ / "nothing/inside"));
  EXPECT_TRUE(file_exists(folder_));
  fs::create_symlink("loop", folder_ / "loop");
  fs::create_symlink("/nowhere", folder_ / "lost");
  EXPECT_THROW(file_exists(folder_ / "loop"), UserError);
  EXPECT_THROW(file_exists(folder_ / "lost"), UserError);
}

}  // namespace
}  // namespace dsengine

// Directories are made with their parents, and whatever stands in the way is named.
#include "base/directory.h"

#include <gmock/gmock.h>

#include "base/check.h"
#include "base/json.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string refusal(const fs::path& path) {
  try {
    make_directories(path, "output_dir");
  } catch (const UserError& error) {
    return error.what();
  }
  return "made";
}

TEST(MakeDirectories, MakesWhatIsNotThere) {
  const ScratchFolder scratch;
  for (const char* path : {"a/b/c", "a/b/c", "a/b/", "d/", "e/../f/./g"}) {
    if (std::string(path).starts_with("e")) fs::create_directory(scratch.path / "e");
    make_directories(scratch.path / path);
    EXPECT_TRUE(fs::is_directory(scratch.path / path)) << path;
  }
  fs::create_directory_symlink("a", scratch.path / "link");
  make_directories(scratch.path / "link/h");
  EXPECT_TRUE(fs::is_directory(scratch.path / "a/h"));
}

TEST(MakeDirectories, NamesWhatStandsInTheWay) {
  const ScratchFolder scratch;
  write_text(scratch.path / "file", "");
  fs::create_symlink("/nowhere/at/all", scratch.path / "lost");
  const std::string file = "cannot make output_dir " + (scratch.path / "file").string();
  EXPECT_EQ(refusal(scratch.path / "file"), file + ": it is a file");
  EXPECT_EQ(refusal(scratch.path / "file/a/b"), file + "/a/b: Not a directory");
  EXPECT_THAT(refusal(scratch.path / "lost"), HasSubstr("lost: No such file or directory"));
  EXPECT_THAT(refusal("/proc/nothing/here"), HasSubstr("cannot make output_dir /proc/nothing: No such file"));
}

}  // namespace
}  // namespace dsengine

#include "files/atomic_directory.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <functional>
#include <set>

#include "files_support.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(directory)) names.insert(item.path().filename().string());
  return names;
}

void write_version(const fs::path& directory, const std::string& version) {
  write_text(directory / "a", version);
  fs::create_directory(directory / "sub");
  write_text(directory / "sub" / "b", version);
  if (version == "new") write_text(directory / "c", version);
}

void save(const fs::path& path, const std::string& version) {
  AtomicDirectory directory(path);
  write_version(directory.path(), version);
  directory.commit();
}

// "old" or "new" where the directory is entirely that; "" where it is not there; else what is wrong.
std::string version_of(const fs::path& path) {
  if (!fs::exists(path)) return "";
  for (const std::string version : {"old", "new"}) {
    const std::set<std::string> files =
        version == "new" ? std::set<std::string>{"a", "c", "sub"} : std::set<std::string>{"a", "sub"};
    if (names_in(path) == files && read_text(path / "a") == version && names_in(path / "sub").size() == 1 &&
        read_text(path / "sub" / "b") == version && (version == "old" || read_text(path / "c") == version)) {
      return version;
    }
  }
  return "neither";
}

// Runs `action` in a child process and kills it before its system call number `calls`. False where the
// child came to its end before; throws where the system does not allow processes to be traced.
bool killed_before_call(int calls, const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(9);
    ::raise(SIGSTOP);
    action();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) throw std::runtime_error("tracing is not allowed here");
  for (int stops = 0;;) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return false;
    // A call stops twice, where it starts and where it ends; the last state before call n is at its start.
    if (stops++ == 2 * calls) break;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return true;
}

TEST(AtomicDirectory, CreatesAndReplaces) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "deep" / "er" / "save";
  save(path, "old");
  EXPECT_EQ(version_of(path), "old");
  save(path.string() + "/", "new");
  EXPECT_EQ(version_of(path), "new");
  EXPECT_THAT(names_in(path.parent_path()), ElementsAre("save"));
}

TEST(AtomicDirectory, WithoutCommitNothingChanges) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "save";
  save(path, "old");
  {
    AtomicDirectory abandoned(path);
    EXPECT_EQ(abandoned.path(), directory.path() / fmt::format(".save.tmp-{}", ::getpid()));
    write_version(abandoned.path(), "new");
  }
  EXPECT_EQ(version_of(path), "old");
  EXPECT_THAT(names_in(directory.path()), ElementsAre("save"));
}

TEST(AtomicDirectory, RefusesAFileInItsPlace) {
  TemporaryDirectory directory;
  write_text(directory.path() / "save", "");
  EXPECT_THAT(refusal([&] { AtomicDirectory(directory.path() / "save"); }), HasSubstr("a file is where"));
  EXPECT_THAT(refusal([&] { AtomicDirectory(directory.path() / "save" / "x"); }), HasSubstr("cannot make"));
  EXPECT_THAT(refusal([] { AtomicDirectory("/"); }), HasSubstr("cannot be replaced"));
}

TEST(AtomicDirectory, LeavesTheDirectoriesOfOthersAlone) {
  TemporaryDirectory directory;
  const auto alive = directory.path() / fmt::format(".save.tmp-{}", ::getppid());
  for (const char* name : {".save.tmp-", ".save.tmp-x1", ".other.tmp-999999999", ".save.tmp-999999999"}) {
    fs::create_directory(directory.path() / name);
  }
  fs::create_directory(alive);
  AtomicDirectory::recover(directory.path() / "save");
  EXPECT_THAT(names_in(directory.path()),
              ElementsAre(".other.tmp-999999999", ".save.tmp-", alive.filename().string(), ".save.tmp-x1"));
}

// Stopped before each system call in turn, as by a kill: after recover the directory is there, entirely
// old or entirely new, and nothing else is.
void expect_whole_at_every_stop(const std::string& before) {
  std::set<std::string> seen;
  for (int calls = 0;; ++calls) {
    TemporaryDirectory directory;
    const auto path = directory.path() / "save";
    if (!before.empty()) save(path, before);
    const bool killed = killed_before_call(calls, [&] { save(path, "new"); });
    // Should someone remove the new directory before recover runs, this one comes back: it must be whole.
    const std::string aside = version_of(directory.path() / ".save.old");
    ASSERT_TRUE(aside.empty() || aside == before) << "call " << calls << ": " << aside;
    AtomicDirectory::recover(path);
    const std::string version = version_of(path);
    ASSERT_TRUE(version == before || version == "new") << "call " << calls << ": " << version;
    const std::set<std::string> rest = names_in(directory.path());
    ASSERT_EQ(rest, version.empty() ? std::set<std::string>{} : std::set<std::string>{"save"}) << "call " << calls;
    seen.insert(version);
    if (!killed) break;
    ASSERT_LT(calls, 2000);
  }
  EXPECT_EQ(seen, (std::set<std::string>{before, "new"}));
}

TEST(AtomicDirectory, AKillAtAnyMomentLeavesOldOrNew) {
  try {
    expect_whole_at_every_stop("old");
    expect_whole_at_every_stop("");
  } catch (const std::runtime_error& e) {
    GTEST_SKIP() << "NOT TESTED: " << e.what();
  }
}

// recover() itself may be stopped too, in each state that a stopped commit leaves.
TEST(AtomicDirectory, AKillDuringRecoveryLosesNothing) {
  const fs::path temporary = ".save.tmp-999999999", aside = ".save.old";
  const auto expect_version = [&](const std::string& at_aside, const std::string& at_final,
                                  const std::string& expected) {
    for (int calls = 0;; ++calls) {
      TemporaryDirectory directory;
      const auto make = [&](const fs::path& name, const std::string& version) {
        if (version.empty()) return;
        fs::create_directory(directory.path() / name);
        write_version(directory.path() / name, version);
      };
      make(aside, at_aside);
      make("save", at_final);
      make(temporary, "new");
      const bool killed = killed_before_call(calls, [&] { AtomicDirectory::recover(directory.path() / "save"); });
      AtomicDirectory::recover(directory.path() / "save");
      ASSERT_EQ(version_of(directory.path() / "save"), expected) << "call " << calls;
      ASSERT_THAT(names_in(directory.path()), ElementsAre("save")) << "call " << calls;
      if (!killed) return;
    }
  };
  try {
    expect_version("", "old", "old");
    expect_version("old", "", "old");
    expect_version("old", "new", "new");
  } catch (const std::runtime_error& e) {
    GTEST_SKIP() << "NOT TESTED: " << e.what();
  }
}

TEST(AtomicFile, AKillAtAnyMomentLeavesOldOrNew) {
  const std::string old_text(5000, 'o'), new_text(9000, 'n');
  std::set<std::string> seen;
  try {
    for (int calls = 0;; ++calls) {
      TemporaryDirectory directory;
      const auto path = directory.path() / "state.json";
      atomic_write_file(path, old_text);
      const bool killed = killed_before_call(calls, [&] { atomic_write_file(path, new_text); });
      const std::string text = read_text(path);
      ASSERT_TRUE(text == old_text || text == new_text) << "call " << calls;
      seen.insert(text);
      remove_leftovers(directory.path());
      ASSERT_THAT(names_in(directory.path()), ElementsAre("state.json")) << "call " << calls;
      if (!killed) break;
    }
  } catch (const std::runtime_error& e) {
    GTEST_SKIP() << "NOT TESTED: " << e.what();
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST(AtomicFile, AFailureLeavesNothing) {
  TemporaryDirectory directory;
  fs::create_directory(directory.path() / "taken");
  EXPECT_THAT(refusal([&] { atomic_write_file(directory.path() / "taken", "x"); }), HasSubstr("cannot write"));
  EXPECT_THAT(names_in(directory.path()), ElementsAre("taken"));
  EXPECT_THAT(refusal([&] { atomic_write_file(directory.path() / "no" / "x", "x"); }), HasSubstr("cannot write"));
}

}  // namespace
}  // namespace dsengine

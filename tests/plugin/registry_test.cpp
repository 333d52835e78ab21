#include "plugin/registry.h"

#include <chrono>
#include <cstdlib>

#include "base/json.h"
#include "base/sha256.h"
#include "plugin/fixtures.h"
#include "plugin/list.h"
#include "plugin/verify.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

using Paths = std::vector<std::filesystem::path>;

TEST(PluginRegistry, FindsByKindAndName) {
  const ScratchFolder folder;
  folder.copy("whole", "libdse_whole.so");
  folder.copy("nll", "libdse_nll.so");
  folder.copy("same_item", "other.so");  // no libdse_*.so: not looked at
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.listing().size(), 2u);
  EXPECT_TRUE(registry.opened().empty());
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").file.filename(), "libdse_nll.so");
  EXPECT_EQ(registry.opened(), Paths{folder.path() / "libdse_nll.so"});
  EXPECT_EQ(registry.items(DSE_DATASET).size(), 1u);
  EXPECT_TRUE(registry.items(DSE_MODEL).empty());
  EXPECT_THAT(error_of([&] { registry.find(DSE_ALGORITHM, "nil"); }),
              AllOf(HasSubstr("no algorithm 'nil'"), HasSubstr("did you mean 'nll'?"), Not(HasSubstr("failed"))));
  EXPECT_THAT(error_of([&] { registry.find(DSE_MODEL, "nll"); }),
              AllOf(HasSubstr("no model 'nll'"), HasSubstr(folder.path().string())));
  EXPECT_THAT(error_of([&] { registry.find_model("LlamaForCausalLM"); }), HasSubstr("'LlamaForCausalLM'"));
  EXPECT_THAT(error_of([&] { registry.require_named("empti"); }), HasSubstr("did you mean 'empty'?"));
}

TEST(PluginRegistry, BrokenFileOnThePathIsRememberedOnly) {
  const ScratchFolder folder;
  folder.copy("nll", "libdse_nll.so");
  folder.copy("throws", "libdse_throws.so");
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").name, "nll");
  ASSERT_EQ(registry.failures().size(), 1u);
  EXPECT_THAT(registry.failures()[0], HasSubstr("libdse_throws.so: threw"));
  EXPECT_THAT(error_of([&] { registry.find(DSE_ALGORITHM, "nlll"); }),
              AllOf(HasSubstr("did you mean 'nll'?"), HasSubstr("failed to load: "), HasSubstr("libdse_throws.so")));
}

TEST(PluginRegistry, ListedFilesAreErrorsAtOnceAndPinned) {
  const auto made = [](const std::vector<PluginFile>& files) {
    return error_of([&] { PluginRegistry({}, files, {}); });
  };
  EXPECT_EQ(made({{fixture("nll"), sha256_file(fixture("nll"))}}), "");
  EXPECT_EQ(made({{fixture("nll"), ""}, {fixture("nll"), ""}}), "");  // the same file twice is one
  EXPECT_THAT(made({{fixture("throws"), ""}}), HasSubstr("C++ exception"));
  EXPECT_THAT(made({{fixture("nll"), std::string(64, 'a')}}), HasSubstr("sha256"));
  EXPECT_THAT(made({{fixture("whole"), ""}, {fixture("same_item"), ""}}),
              AllOf(HasSubstr("dataset 'empty'"), HasSubstr("libdse_whole.so"), HasSubstr("libdse_same_item.so")));
  EXPECT_THAT(error_of([] { PluginRegistry({"/nonexistent/plugins"}, {}, {}); }), HasSubstr("--plugin-path"));
}

TEST(PluginRegistry, EarlierFoldersHideFilesOfTheSameName) {
  const ScratchFolder first, second;
  first.copy("whole", "libdse_a.so");
  second.copy("nll", "libdse_a.so");
  second.copy("short", "libdse_b.so");
  const PluginRegistry registry({first.path()}, {}, {second.path(), "/nonexistent/plugins"});
  EXPECT_EQ(registry.find(DSE_DATASET, "empty").file, first.path() / "libdse_a.so");
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").file, second.path() / "libdse_b.so");
  EXPECT_TRUE(registry.failures().empty());
  const PluginRegistry listed({first.path()}, {{second.path() / "libdse_a.so", ""}}, {});
  EXPECT_TRUE(listed.items(DSE_DATASET).empty());
  EXPECT_EQ(listed.find(DSE_ALGORITHM, "nll").file, second.path() / "libdse_a.so");
}

TEST(PluginRegistry, AnItemOfTwoFilesIsAnErrorNamingBoth) {
  const ScratchFolder folder;
  folder.copy("whole", "libdse_a.so");
  folder.copy("same_item", "libdse_b.so");
  folder.copy("nll", "libdse_nll.so");
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").name, "nll");
  EXPECT_THAT(error_of([&] { registry.find(DSE_DATASET, "empty"); }),
              AllOf(HasSubstr("dataset 'empty'"), HasSubstr("libdse_a.so"), HasSubstr("libdse_b.so")));
}

TEST(PluginRegistry, TheSameFileUnderTwoNamesIsOne) {
  const ScratchFolder folder;
  folder.copy("whole", "libdse_a.so");
  std::filesystem::create_symlink(folder.path() / "libdse_a.so", folder.path() / "libdse_b.so");
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.find(DSE_DATASET, "empty").file, folder.path() / "libdse_a.so");
}

// A folder with libraries that end, or hold up, whoever opens them, and the cache in another folder.
class BadNeighbours : public testing::Test {
 protected:
  BadNeighbours() { setenv("XDG_CACHE_HOME", cache.path().c_str(), 1); }
  ~BadNeighbours() override { unsetenv("XDG_CACHE_HOME"); }
  void copy(std::initializer_list<const char*> names) {
    for (const std::string name : names) folder.copy(name, "libdse_" + name + ".so");
  }
  int64_t cached() const {
    std::error_code error;
    return std::distance(std::filesystem::directory_iterator(cache.path() / "dsengine/plugins", error), {});
  }
  const ScratchFolder folder, cache;
};

TEST_F(BadNeighbours, EndOnlyTheProcessThatAsksThem) {
  copy({"plain", "nll", "older_plain", "older_aborts_on_load", "older_exits_on_load", "older_loud_on_load"});
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").name, "nll");
  EXPECT_EQ(registry.find(DSE_REWARD_ITEM, "older_plain").summary, "odd");
  EXPECT_EQ(registry.opened(), (Paths{folder.path() / "libdse_nll.so", folder.path() / "libdse_older_plain.so"}));
  std::vector<std::string> names;
  for (const auto& [item, file] : registry.listing()) names.push_back(item.name + " " + item.version);
  EXPECT_EQ(names, (std::vector<std::string>{"nll 1.2", "older_loud_on_load 1.0", "older_plain 1.0", "plain 1.0"}));
  ASSERT_EQ(registry.failures().size(), 2u);
  EXPECT_THAT(registry.failures()[0], AllOf(HasSubstr("libdse_older_aborts_on_load.so"), HasSubstr("by signal 6"),
                                            HasSubstr("ask its author")));
  EXPECT_THAT(registry.failures()[1], AllOf(HasSubstr("libdse_older_exits_on_load.so"), HasSubstr("exit status 0")));
  EXPECT_THAT(error_of([&] { registry.find(DSE_REWARD_ITEM, "older_aborts_on_load"); }), HasSubstr("by signal 6"));
  EXPECT_EQ(cached(), 3);  // nll, older_plain, older_loud; failures may have passed by the next time
}

// With a note, an item of it can be told, and only asking for that item opens it.
TEST_F(BadNeighbours, AreNotOpenedForTheirNames) {
  copy({"aborts_on_load", "plain"});
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_EQ(registry.find(DSE_REWARD_ITEM, "plain").name, "plain");
  EXPECT_EQ(registry.listing().size(), 2u);
  EXPECT_EQ(cached(), 0);
  EXPECT_THAT(error_of([&] { registry.find(DSE_REWARD_ITEM, "abort_on_load"); }), HasSubstr("'aborts_on_load'?"));
  EXPECT_EQ(registry.items(DSE_REWARD_ITEM).size(), 1u);  // all of a kind: nobody named the one that would end us
  EXPECT_THAT(registry.failures().at(0), HasSubstr("by signal 6"));
}

TEST_F(BadNeighbours, ThatHangAreWaitedForOnce) {
  copy({"older_hangs_on_load", "plain"});
  const auto seconds = [&] {
    const auto begin = std::chrono::steady_clock::now();
    const PluginRegistry registry({folder.path()}, {}, {});
    EXPECT_EQ(registry.find(DSE_REWARD_ITEM, "plain").name, "plain");
    EXPECT_THAT(registry.failures().at(0), AllOf(HasSubstr("libdse_older_hangs_on_load.so"), HasSubstr("within 10 s")));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  EXPECT_GT(seconds(), 9);
  EXPECT_LT(seconds(), 9);
}

TEST_F(BadNeighbours, ACacheThatIsNoneIsMadeAgain) {
  copy({"older_plain"});
  const auto find = [&] { return PluginRegistry({folder.path()}, {}, {}).find(DSE_REWARD_ITEM, "older_plain").name; };
  EXPECT_EQ(find(), "older_plain");
  const auto file = std::filesystem::directory_iterator(cache.path() / "dsengine/plugins")->path();
  const auto good = read_text(file);
  for (const char* bad : {"", "{", "[]", "{}", "null", "7", R"({"items": 3})", R"({"items": [{"kind": "x"}]})"}) {
    write_text(file, bad);
    EXPECT_EQ(find(), "older_plain") << bad;
    EXPECT_EQ(read_text(file), good) << bad;
  }
  setenv("XDG_CACHE_HOME", "/proc/nonexistent", 1);
  EXPECT_EQ(find(), "older_plain");
}

// Whatever stands in the bytes of the notes, the library is listed by its items or not at all, and nothing crashes.
TEST_F(BadNeighbours, NotesOfAnyBytes) {
  const auto whole = read_text(fixture("plain"));
  const auto begin = whole.find(std::string_view("reward\0plain\0", 13));
  ASSERT_NE(begin, whole.npos);
  for (size_t at = begin - 24; at < begin + 24; at += 3)
    for (const unsigned char byte : {0x00, 0xff, 0x80}) {
      auto changed = whole;
      changed[at] = char(byte);
      write_text(folder.path() / "libdse_plain.so", changed);
      const PluginRegistry registry({folder.path()}, {}, {});
      for (const auto& [item, file] : registry.listing()) EXPECT_FALSE(item.name.empty());
    }
}

TEST_F(BadNeighbours, AFileThatHidesAnotherSaysSo) {
  const ScratchFolder other;
  copy({"plain"});
  other.copy("nll", "libdse_plain.so");
  const PluginRegistry registry({folder.path()}, {}, {other.path()});
  ASSERT_EQ(registry.hidden().size(), 1u);
  EXPECT_EQ(registry.hidden()[0].file, other.path() / "libdse_plain.so");
  EXPECT_EQ(registry.hidden()[0].by, folder.path() / "libdse_plain.so");
  EXPECT_THAT(list_plugins(registry), HasSubstr("hidden: " + other.path().string() + "/libdse_plain.so by "));
}

TEST_F(BadNeighbours, ANoteThatIsWrongIsToldWhenItsItemIsAskedFor) {
  copy({"wrong_note"});
  const PluginRegistry registry({folder.path()}, {}, {});
  EXPECT_THAT(error_of([&] { registry.find(DSE_REWARD_ITEM, "another"); }),
              AllOf(HasSubstr("ELF note names reward 'another'"), HasSubstr("build it again")));
  EXPECT_FALSE(all_ok(verify(registry, (folder.path() / "libdse_wrong_note.so").string())));
}

TEST(PluginRegistry, DefaultPathIsTheVariableThenTheInstallationNeverTheWorkingFolder) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "lib/dsengine";
  unsetenv("DSENGINE_PLUGIN_PATH");
  EXPECT_EQ(default_plugin_path(), Paths{program});
  setenv("DSENGINE_PLUGIN_PATH", ":/one::/two/three:", 1);
  EXPECT_EQ(default_plugin_path(), (Paths{"/one", "/two/three", program}));
  setenv("DSENGINE_PLUGIN_PATH", "/one:.", 1);
  EXPECT_THAT(error_of([] { default_plugin_path(); }), HasSubstr("'.' is relative"));
  unsetenv("DSENGINE_PLUGIN_PATH");
}

}  // namespace
}  // namespace dsengine

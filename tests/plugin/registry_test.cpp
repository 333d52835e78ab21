#include "plugin/registry.h"

#include <cstdlib>

#include "base/json.h"
#include "base/sha256.h"
#include "plugin/fixtures.h"

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
  EXPECT_EQ(registry.libraries().size(), 2u);
  EXPECT_EQ(registry.find(DSE_ALGORITHM, "nll").file.filename(), "libdse_nll.so");
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

// Each broken plugin of tests/abi gives one line that names the file, the fault and the remedy; each odd but
// lawful one loads. A crash would end the test program.
#include "plugin/library.h"

#include "base/json.h"
#include "base/sha256.h"
#include "plugin/fixtures.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string load_error(const std::filesystem::path& file, const std::string& pin = "") {
  return error_of([&] { PluginLibrary(file, pin); });
}

struct Fault {
  const char* fixture;
  std::vector<const char*> says;
};

class BrokenPlugin : public testing::TestWithParam<Fault> {};

TEST_P(BrokenPlugin, GivesOneClearLine) {
  const auto file = fixture(GetParam().fixture);
  ASSERT_TRUE(std::filesystem::exists(file)) << file;
  const auto text = load_error(file);
  EXPECT_THAT(text, StartsWith("plugin " + file.string() + ": "));
  for (const char* part : GetParam().says) EXPECT_THAT(text, HasSubstr(part));
}

INSTANTIATE_TEST_SUITE_P(
    Abi, BrokenPlugin,
    testing::Values(Fault{"wrong_major", {"built for ABI 2.", "this host has 1.", "rebuild"}},
                    Fault{"newer_minor", {"built for ABI 1.", "install a newer dsengine"}},
                    Fault{"zero_size", {"struct_size is 0", "sizeof(dse_plugin)"}},
                    Fault{"no_symbol", {"exports no dse_plugin_entry"}},
                    Fault{"fails", {"needs a licence file"}},  // the line break became a blank
                    Fault{"fails_silently", {"code 1", "gave no reason"}},
                    Fault{"throws", {"threw a C++ exception (no licence)", "ask its author"}},
                    Fault{"null_plugin", {"gave no table", "set *plugin"}},
                    Fault{"null_items", {"items: 1 announced, but the array is NULL"}},
                    Fault{"null_table", {"dataset 'empty'", "its table is NULL"}},
                    Fault{"no_open", {"dataset 'empty'", "has no open; set it"}},
                    Fault{"bad_default", {"option 'rows'", "default 'many' is not of type integer"}},
                    Fault{"empty_name", {"an item has no name"}}, Fault{"unknown_kind", {"kind 99"}},
                    Fault{"duplicate", {"two items of one name: dataset 'empty'"}},
                    Fault{"long_nonzero", {"items[1]", "fields that this host does not know", "newer dsengine"}}),
    [](const auto& info) { return std::string(info.param.fixture); });

TEST(PluginLibrary, LoadsAWholePlugin) {
  const PluginLibrary library(fixture("whole"));
  EXPECT_EQ(library.name(), "fixture");
  EXPECT_EQ(library.version(), "1.0");
  EXPECT_EQ(library.sha256(), sha256_hex(read_text(fixture("whole"))));
  ASSERT_EQ(library.items().size(), 1u);
  const Item& item = library.items()[0];
  EXPECT_EQ(item.kind, uint32_t{DSE_DATASET});
  EXPECT_EQ(item.name, "empty");
  EXPECT_EQ(item.file, fixture("whole"));
  ASSERT_EQ(item.options.size(), 1u);
  EXPECT_STREQ(item.options[0].name, "rows");
  EXPECT_NE(item.dataset().open, nullptr);
}

TEST(PluginLibrary, ShortStructReadsAsZeroTail) {
  const PluginLibrary library(fixture("short"));
  const dse_algorithm& table = library.items()[0].algorithm();
  EXPECT_EQ(table.struct_size, sizeof(dse_algorithm));
  EXPECT_NE(table.loss, nullptr);
  EXPECT_EQ(table.save, nullptr);  // the fixture has rubbish there, beyond its struct_size
  EXPECT_EQ(table.load, nullptr);
}

TEST(PluginLibrary, LongerItemsWithZeroTailAreStrided) {
  const PluginLibrary library(fixture("long_zero"));
  ASSERT_EQ(library.items().size(), 2u);
  EXPECT_EQ(library.items()[1].name, "empty_too");
}

// A kernel of the tables before: refused by name, whatever else has changed since.
TEST(PluginLibrary, AKernelNeedsTheRevisionOfItsTables) {
  EXPECT_THAT(load_error(fixture("kernel")),
              AllOf(HasSubstr("kernel 'k'"), HasSubstr("not frozen"), HasSubstr("revision 1"), HasSubstr("rebuild")));
}

TEST(PluginLibrary, WrongFiles) {
  const ScratchFolder folder;
  EXPECT_THAT(load_error(folder.path() / "libdse_x.so"), HasSubstr("no such file"));
  EXPECT_THAT(load_error(folder.path()), HasSubstr("not a regular file"));
  const auto text_file = folder.path() / "libdse_text.so";
  write_text(text_file, "#!/bin/sh\nexit 1\n");
  EXPECT_THAT(load_error(text_file), HasSubstr("is not an ELF file"));
  write_text(text_file, "");
  EXPECT_THAT(load_error(text_file), HasSubstr("is not an ELF file"));
  EXPECT_THAT(load_error("/proc/self/exe"), HasSubstr("plugin"));
}

// dlopen alone dies of SIGBUS on some of these lengths.
TEST(PluginLibrary, TruncatedAnywhere) {
  const ScratchFolder folder;
  const auto whole = read_text(fixture("whole"));
  const auto file = folder.path() / "libdse_cut.so";
  for (size_t kept = 4; kept < whole.size(); kept += kept < 1024 ? 20 : 512) {
    write_text(file, whole.substr(0, kept));
    EXPECT_THAT(load_error(file), HasSubstr("is truncated")) << kept << " of " << whole.size();
  }
}

TEST(PluginLibrary, PinIsCheckedBeforeAnyCodeRuns) {
  const auto pin = sha256_file(fixture("whole"));
  EXPECT_EQ(load_error(fixture("whole"), pin), "");
  EXPECT_THAT(load_error(fixture("whole"), std::string(64, '0')), AllOf(HasSubstr("sha256"), HasSubstr(pin)));
  // Its entry would throw: the pin is told first.
  EXPECT_THAT(load_error(fixture("throws"), pin), HasSubstr("sha256 is not the pinned one"));
}

}  // namespace
}  // namespace dsengine

// The plugins of tests/abi, built beside the tests, and folders to put copies of them in.
//
//   PluginLibrary library(fixture("nll"));
//   EXPECT_THAT(error_of([] { PluginLibrary(fixture("throws")); }), HasSubstr("C++ exception"));
//   ScratchFolder folder; folder.copy("whole", "libdse_b.so");
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/check.h"

namespace dsengine {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(DSE_BINARY_DIR) / "tests/abi" / ("libdse_" + name + ".so");
}

// The UserError of `body`, which must be one line; "" if there is none.
template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const UserError& e) {
    const std::string text = e.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  return "";
}

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = testing::TempDir() + "dse_plugin_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path copy(const std::string& fixture_name, const std::string& as) const {
    std::filesystem::copy_file(fixture(fixture_name), path_ / as);
    return path_ / as;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace dsengine

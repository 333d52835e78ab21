// What the tests of core/files share: a directory that goes away, byte strings, a refusal's text.
//
//   TemporaryDirectory directory;
//   write_text(directory.path() / "a", "text");
//   EXPECT_THAT(refusal([&] { SafetensorsFile(directory.path() / "a"); }), HasSubstr("too few"));
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/json.h"

namespace dsengine {

inline const std::filesystem::path kBins = std::filesystem::path(DSE_TEST_DIR) / "golden" / "bins";
inline const std::filesystem::path kPython = std::filesystem::path(DSE_SOURCE_DIR) / ".deps/venv/bin/python";

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "dsengine-files-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// The number's bytes as they lie in memory (little-endian).
template <class T>
std::string packed(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// The text of the UserError that `action` throws; "" where it throws none.
template <class Action>
std::string refusal(Action action) {
  try {
    action();
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// What torch read from the file, by tests/golden/make_bins.py.
inline std::vector<ExpectedTensor> expected_tensors(const std::string& group) {
  std::vector<ExpectedTensor> tensors;
  const Json file = read_json(kBins / "expected.json");
  for (const Json& json : file.at(group)) {
    ExpectedTensor tensor{json.at("name"), json.at("shape"), {}};
    const std::string hex = json.at("values");
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    tensor.values.resize(bytes.size() / sizeof(float));
    if (!bytes.empty()) std::memcpy(tensor.values.data(), bytes.data(), bytes.size());
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace dsengine

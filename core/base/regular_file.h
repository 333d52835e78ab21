// A regular file opened for reading. A pipe, a device, a folder or a loop of links in a file's place is a UserError
// that names it, at once: nothing is waited for. A read that fails in the middle is an error too, never the end.
//
//   RegularFile file("config.json");
//   std::string text = read_text("config.json", kMostTextBytes);            // the whole of it
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/check.h"

namespace dsengine {

// The disk, or a right that is missing, kept a file from being read: what is in it is not known.
class ReadError : public UserError {
 public:
  using UserError::UserError;
};

class RegularFile {
 public:
  explicit RegularFile(std::filesystem::path path);
  ~RegularFile();
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;

  uint64_t size() const { return size_; }  // when it was opened
  int descriptor() const { return file_; }
  // The next bytes; fewer than `out` has only at the file's end.
  size_t read(std::span<char> out);

 private:
  std::filesystem::path path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

// Whether a name is there. A link that leads nowhere, or a folder that may not be looked into, is a UserError: what
// cannot be read is not taken for what is not there.
bool file_exists(const std::filesystem::path& path);

// What a text may have: several times the largest tokenizer there is. A larger one is a UserError.
constexpr uint64_t kMostTextBytes = uint64_t{256} << 20;

std::string read_text(const std::filesystem::path& path, uint64_t most_bytes);

}  // namespace dsengine

// What the fuzzers share: an input that ends in a UserError is as good as one that is read; anything else is a finding.
//
//   FUZZ(text) { parse_json(text, "input"); }
//   FUZZ(text) { InputFile file(text); SafetensorsFile read(file.path()); }
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/check.h"

namespace dsengine {

// The input as a file, in memory alone.
class InputFile {
 public:
  explicit InputFile(std::string_view bytes) : file_(memfd_create("input", MFD_CLOEXEC)) {
    if (file_ < 0 || ::write(file_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  }
  ~InputFile() { ::close(file_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

// What an error's line must be: one line, and not empty.
inline void check_error(const UserError& error) {
  if (*error.what() == '\0') std::abort();
}

}  // namespace dsengine

#define FUZZ(text)                                                          \
  static void fuzz(std::string_view text);                                  \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    try {                                                                   \
      fuzz({reinterpret_cast<const char*>(data), size});                    \
    } catch (const dsengine::UserError& error) {                            \
      dsengine::check_error(error);                                         \
    }                                                                       \
    return 0;                                                               \
  }                                                                         \
  static void fuzz(std::string_view text)

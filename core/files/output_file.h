// A file being written. It becomes durable with close(); destroyed before that, it is removed, so that
// nothing half-written stays. Every failure, a full disk included, is a UserError naming the path.
//
//   OutputFile file("model.safetensors");
//   file.write(bytes);
//   file.close();
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>

#include "base/check.h"

namespace dsengine {

// The reader of a pipe that is written to has gone, as `head` does: the program ends, and has nothing to say. Thrown
// only where SIGPIPE is ignored.
class ClosedPipe : public UserError {
 public:
  using UserError::UserError;
};

// Writes all of it; a failure is a UserError with the path.
void write_all(int file, std::span<const std::byte> bytes, const std::filesystem::path& path);

class OutputFile {
 public:
  // Creates the file, or empties it.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  // Waits until the bytes are on the disk.
  void close();
  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  int file_ = -1;  // -1 once closed
};

// Waits until a file's bytes, or a directory's names, are on the disk.
void sync_path(const std::filesystem::path& path);

}  // namespace dsengine

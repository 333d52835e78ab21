// A file mapped read-only into memory; the mapping lives as long as the object, and moves with it.
//
//   MappedFile file("model.safetensors");
//   std::span<const std::byte> bytes = file.bytes();
//   // pages are read from disk when they are touched
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

namespace dsengine {

class MappedFile {
 public:
  // Throws UserError naming the path where it cannot be read or is no regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace dsengine

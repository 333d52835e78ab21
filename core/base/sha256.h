// SHA-256 (FIPS 180-4): pins plugin files and names configurations.
//
//   Sha256 hash;
//   hash.update(bytes);
//   std::string digest = hash.hex();  // 64 lower-case digits
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace dsengine {

class Sha256 {
 public:
  void update(std::string_view bytes);
  // Ends the message; the object is spent.
  std::string hex();

 private:
  void compress(const unsigned char* block);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  size_t filled_ = 0;    // bytes of block_
  uint64_t length_ = 0;  // bytes of the message
};

std::string sha256_hex(std::string_view bytes);
// Reads the file in pieces; UserError where it cannot.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace dsengine

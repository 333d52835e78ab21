// SHA-256 (FIPS 180-4), by libcrypto: pins plugin files, names configurations, tells that a file has changed.
//
//   Sha256 hash;
//   hash.update(bytes);
//   std::string digest = hash.hex();  // 64 lower-case digits
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // libcrypto's EVP_MD_CTX

namespace dsengine {

class Sha256 {
 public:
  Sha256();
  void update(std::string_view bytes);
  // Ends the message; the object is spent.
  std::string hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string sha256_hex(std::string_view bytes);
// Reads the file in pieces, at most its first `bytes`; UserError where it cannot, or where the file is shorter than a
// given number of bytes.
std::string sha256_file(const std::filesystem::path& path, uint64_t bytes = UINT64_MAX);

}  // namespace dsengine

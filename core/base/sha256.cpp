#include "base/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace dsengine {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  DSE_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "libcrypto has no SHA-256");
}

void Sha256::update(std::string_view bytes) {
  DSE_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "libcrypto's SHA-256 failed");
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  DSE_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1, "libcrypto's SHA-256 failed");
  std::string text;
  for (const auto byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path, uint64_t bytes) {
  const auto fail = [&] { user_error(fmt::format("cannot read {}: {}", path.string(), std::strerror(errno))); };
  struct File {
    int descriptor;
    ~File() { ::close(descriptor); }
  };
  const File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.descriptor < 0) fail();
  Sha256 hash;
  std::vector<char> piece(1 << 20);
  for (uint64_t left = bytes; left > 0;) {
    const ssize_t got = ::read(file.descriptor, piece.data(), std::min<uint64_t>(piece.size(), left));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail();
    DSE_CHECK_USER(got > 0 || bytes == UINT64_MAX, "{} ends after {} bytes, {} were written", path.string(),
                   bytes - left, bytes);
    if (got == 0) break;
    hash.update({piece.data(), size_t(got)});
    left -= uint64_t(got);
  }
  return hash.hex();
}

}  // namespace dsengine

// Known answers: FIPS 180-4's examples (NIST CSRC), and lengths on both sides of each padding boundary
// computed by coreutils' sha256sum.
#include "base/sha256.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/check.h"
#include "base/json.h"

namespace dsengine {
namespace {

constexpr const char* kMillionA = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, NistExamples) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')), kMillionA);
}

TEST(Sha256, PaddingBoundaries) {
  EXPECT_EQ(sha256_hex(std::string(55, 'x')), "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072");
  EXPECT_EQ(sha256_hex(std::string(56, 'x')), "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e");
  EXPECT_EQ(sha256_hex(std::string(63, 'x')), "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2");
  EXPECT_EQ(sha256_hex(std::string(64, 'x')), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c");
  EXPECT_EQ(sha256_hex(std::string(65, 'x')), "9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9");
  EXPECT_EQ(sha256_hex(std::string(119, 'x')), "000b48d4edf0fa7bee3c6236ecd2785baa5db4eeb8bb54341b029e0d9fa5fb0c");
  EXPECT_EQ(sha256_hex(std::string(120, 'x')), "13f05a0b594787f5ecd315edc96141bd3243203d1b7d4f0836f37308b276ba98");
}

TEST(Sha256, PiecesDoNotMatter) {
  const std::string text(1'000'000, 'a');
  Sha256 hash;
  for (size_t at = 0, step = 1; at < text.size(); at += step, step = step % 200 + 1)
    hash.update(std::string_view(text).substr(at, step));
  EXPECT_EQ(hash.hex(), kMillionA);
}

TEST(Sha256, Files) {
  const auto path = std::filesystem::path(testing::TempDir()) / "dse_sha256";
  write_text(path, std::string(1'000'000, 'a'));
  EXPECT_EQ(sha256_file(path), kMillionA);
  std::filesystem::remove(path);
  EXPECT_THROW(sha256_file(path), UserError);
}

}  // namespace
}  // namespace dsengine

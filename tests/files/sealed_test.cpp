// Every flipped bit of a sealed file is noticed, and every other change of a folder's files.
#include "files/sealed.h"

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/sha256.h"
#include "files/files_support.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class SealedTest : public testing::Test {
 protected:
  TemporaryDirectory directory_;
  fs::path folder_ = directory_.path();
  fs::path file_ = folder_ / "manifest.json";
  const Json object_{{"step", 12}, {"offset", 0.5}, {"name", "a \"b\" ü"}, {"list", {1, 2}}, {"none", nullptr}};
};

TEST_F(SealedTest, IsReadAgain) {
  write_text(file_, sealed_text(object_));
  EXPECT_EQ(read_sealed(file_), object_);
  EXPECT_EQ(read_json(file_)["sha256"], sha256_hex(object_.dump(2) + "\n"));
}

TEST_F(SealedTest, EveryFlippedBitIsNoticed) {
  const std::string text = sealed_text(object_);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = char(flipped[bit / 8] ^ (1 << bit % 8));
    write_text(file_, flipped);
    EXPECT_THROW(read_sealed(file_), UserError) << "bit " << bit;
  }
  write_text(file_, text + "\n");
  EXPECT_THROW(read_sealed(file_), UserError);
  write_text(file_, object_.dump(2) + "\n");
  EXPECT_THROW(read_sealed(file_), UserError);
}

TEST_F(SealedTest, ChangedFilesAreNamed) {
  write_text(folder_ / "a", "abc");
  fs::create_directories(folder_ / "sub");
  write_text(folder_ / "sub/b", "");
  const Json hashes = file_hashes(folder_);
  EXPECT_EQ(hashes, (Json{{"a", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                          {"sub/b", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}));
  EXPECT_EQ(changed_file(folder_, hashes), std::nullopt);
  write_text(folder_ / "sub/b", "x");
  EXPECT_EQ(changed_file(folder_, hashes), (folder_ / "sub/b").string() + " has changed since it was written");
  fs::remove(folder_ / "a");
  EXPECT_EQ(changed_file(folder_, hashes), (folder_ / "a").string() + " is missing");
}

}  // namespace
}  // namespace dsengine

#include "files/line_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/check.h"
#include "files/files_support.h"

namespace dsengine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class LineReaderTest : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const auto path = directory_.path() / "lines";
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  static std::vector<std::string> read(const std::string& path) {
    LineReader input(path);
    std::vector<std::string> lines;
    for (std::string line; input.next(line);) {
      lines.push_back(line);
      EXPECT_EQ(input.number(), lines.size());
      EXPECT_TRUE(input.whole());
    }
    std::string none;
    EXPECT_FALSE(input.next(none));
    return lines;
  }
  TemporaryDirectory directory_;
};

TEST_F(LineReaderTest, ALineEndsWithItsEndOrTheFiles) {
  EXPECT_THAT(read(write("")), ElementsAre());
  EXPECT_THAT(read(write("\n")), ElementsAre(""));
  EXPECT_THAT(read(write("a\n\nb")), ElementsAre("a", "", "b"));
  EXPECT_THAT(read(write("a\r\nb\n")), ElementsAre("a\r", "b"));
  EXPECT_THAT(read(write(std::string("a\0b\n", 4))), ElementsAre(std::string("a\0b", 3)));
}

// Blocks of 1 MiB are read: lines that end at, before and behind their edges, and that go over several.
TEST_F(LineReaderTest, BlocksAreNotSeen) {
  constexpr size_t block = size_t(1) << 20;
  for (const size_t size : {block - 2, block - 1, block, block + 1, 3 * block + 5}) {
    const std::string line(size, 'x');
    EXPECT_THAT(read(write(line + "\n" + line + "\nend\n")), ElementsAre(line, line, "end")) << size;
    EXPECT_THAT(read(write(line)), ElementsAre(line)) << size;
  }
}

TEST_F(LineReaderTest, AnEndlessLineIsCutAndTheNextIsRead) {
  LineReader input(write("12345\n123456\n" + std::string(5 << 20, 'x') + "\nend"), 5);
  std::string line;
  ASSERT_TRUE(input.next(line) && input.whole());
  for (const char* beginning : {"12345", "xxxxx"}) {
    ASSERT_TRUE(input.next(line));
    EXPECT_FALSE(input.whole());
    EXPECT_EQ(line, beginning);
  }
  ASSERT_TRUE(input.next(line) && input.whole());
  EXPECT_EQ(line, "end");
  EXPECT_EQ(input.number(), 4u);
  EXPECT_FALSE(input.next(line));
}

TEST_F(LineReaderTest, WhatCannotBeReadIsNoEnd) {
  const auto refusal = [](const std::string& path) -> std::string {
    try {
      std::string line;
      LineReader(path).next(line);
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(refusal("/nowhere/lines"), HasSubstr("cannot read /nowhere/lines: No such file"));
  EXPECT_THAT(refusal(directory_.path().string()), HasSubstr("it is a directory"));
  EXPECT_THAT(refusal("/proc/self/mem"), HasSubstr("cannot read /proc/self/mem: Input/output error"));
}

}  // namespace
}  // namespace dsengine

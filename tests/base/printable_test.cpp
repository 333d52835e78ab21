// What reaches a terminal: no control character of C0 or C1, no byte that is not UTF-8 (The Unicode Standard, 3.9).
#include "base/printable.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dsengine {
namespace {

TEST(Printable, ALine) {
  EXPECT_EQ(printable_line("caf\u00e9 \u4e2d \U0001F600"), "caf\u00e9 \u4e2d \U0001F600");
  EXPECT_EQ(printable_line("a\nb\tc\r\n"), "a b c  ");
  EXPECT_EQ(printable_line("\x1b[2J\x07\x7f"), "?[2J??");
  EXPECT_EQ(printable_line(std::string_view("a\0b", 3)), "a?b");
  EXPECT_EQ(printable_line("\u009b31m\u0085\u00a0"), "?31m?\u00a0");  // C1; the next character is a space
  EXPECT_EQ(printable_line("\x9b"
                           "31m"),
            "?31m");  // C1 as a byte
}

TEST(Printable, WhatIsNoUtf8) {
  EXPECT_EQ(printable_line("\xc0\xaf"), "??");            // overlong
  EXPECT_EQ(printable_line("\xe0\x80\xaf"), "???");       // overlong
  EXPECT_EQ(printable_line("\xed\xa0\x80"), "???");       // a surrogate
  EXPECT_EQ(printable_line("\xf4\x90\x80\x80"), "????");  // beyond U+10FFFF
  EXPECT_EQ(printable_line("caf\xc3"), "caf?");
}

TEST(Printable, ATextKeepsItsLines) { EXPECT_EQ(printable_text("a\n\tb\x1b[0m\r\n"), "a\n\tb?[0m \n"); }

TEST(Printable, AValueIsCut) {
  EXPECT_EQ(shown(std::string(200, 'x')), std::string(200, 'x'));
  EXPECT_EQ(shown(std::string(150, 'a') + std::string(1000, 'x') + std::string(49, 'b') + "\x1b"),
            std::string(149, 'a') + "\u2026" + std::string(49, 'b') + "?");
  std::string wide;
  for (int i = 0; i < 200; ++i) wide += "\u00e9";
  EXPECT_EQ(shown(wide), wide);  // 200 characters of 400 bytes
  EXPECT_EQ(error_line("{} {} {}", 7, std::string(300, 'x'), "y").size(), 2 + 199 + 3 + 2);
}

TEST(Printable, AListNamesTheFirst) {
  EXPECT_EQ(shown_list(std::vector<std::string>{"a", "b"}), "a, b");
  EXPECT_EQ(shown_list(std::vector<std::string>(1000, "a")), "a, a, a, a, a, a, a, a, \u2026 (1000 in all)");
}

}  // namespace
}  // namespace dsengine

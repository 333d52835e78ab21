#include "plugin/option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace dsengine {
namespace {

using testing::HasSubstr;

TEST(Option, RowsAreChecked) {
  const auto row = [](uint32_t type, const char* name, const char* text, const char* choices, double low, double high) {
    return option_fault({sizeof(dse_option), type, name, text, choices, low, high, "help"});
  };
  EXPECT_EQ(row(DSE_OPTION_REAL, "a_1", "1e-5", nullptr, 1, 0), "");
  EXPECT_EQ(row(DSE_OPTION_REAL, "a", "inf", nullptr, 1, 0), "");
  EXPECT_EQ(row(DSE_OPTION_INTEGER, "a", nullptr, nullptr, 1, 0), "");
  EXPECT_THAT(row(DSE_OPTION_REAL, nullptr, "1", nullptr, 1, 0), HasSubstr("no name"));
  EXPECT_THAT(row(DSE_OPTION_REAL, "Kl-Coef", "1", nullptr, 1, 0), HasSubstr("snake_case"));
  EXPECT_THAT(row(9, "a", "1", nullptr, 1, 0), HasSubstr("type 9"));
  EXPECT_THAT(row(DSE_OPTION_INTEGER, "a", "1.5", nullptr, 1, 0), HasSubstr("not of type integer"));
  EXPECT_THAT(row(DSE_OPTION_BOOLEAN, "a", "True", nullptr, 1, 0), HasSubstr("not of type boolean"));
  EXPECT_THAT(row(DSE_OPTION_REAL, "a", "0.5", nullptr, 0, 0), HasSubstr("minimum > maximum means no range"));
  EXPECT_THAT(row(DSE_OPTION_STRING, "a", "c", "a|b", 1, 0), HasSubstr("none of a | b"));
}

TEST(Option, TomlSpelling) {
  EXPECT_EQ(to_toml(1.0), "1.0");
  EXPECT_EQ(to_toml(1e-5), "1e-05");
  EXPECT_EQ(to_toml(0.1), "0.1");
  EXPECT_EQ(to_toml(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(to_toml(int64_t{-3}), "-3");
  EXPECT_EQ(to_toml(std::string("a\"\\\n")), "\"a\\\"\\\\\\u000A\"");
}

}  // namespace
}  // namespace dsengine

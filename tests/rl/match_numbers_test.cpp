// The reward `match` reads numbers exactly: hand-worked cases, and hundreds that Python's fractions judged
// (tests/golden/make_match_numbers.py).
#include <gtest/gtest.h>

#include <filesystem>

#include "base/check.h"
#include "base/json.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

// 1: right, 0.1: another number, 0: no number.
float score(const std::string& reply, const std::string& answer, const std::string& marker = "####") {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
  const Item& item = registry.find(DSE_REWARD_ITEM, "match");
  RewardInstance instance(item, OptionSet(item, {{"format_score", {0.1, ""}}, {"marker", {marker, ""}}}));
  const std::string metadata = "{\"id\": 1, \"answer\": " + answer + "}";
  const dse_answer given{sizeof(dse_answer), DSE_FINISH_EOS, "prompt", reply.c_str(), metadata.c_str(), 0, 0, 0, 3};
  return instance.score({&given, 1})[0];
}

TEST(MatchNumbers, AgreeWithPythonsFractions) {
  const Json cases = read_json(std::filesystem::path(DSE_SOURCE_DIR) / "tests/golden/match_numbers.json");
  ASSERT_GE(cases.size(), 400u);
  for (const auto& c : cases)
    EXPECT_EQ(score(c["reply"], c["answer"]), c["expected"].get<float>()) << c.dump().substr(0, 300);
}

TEST(MatchNumbers, JsonNumbersAreReadAsTheyAreWritten) {
  EXPECT_EQ(score("#### 0.00001", "0.00001"), 1.0f);
  EXPECT_EQ(score("#### -5", "0.00001"), 0.1f);
  EXPECT_EQ(score("#### 20", "1e20"), 0.1f);
  EXPECT_EQ(score("#### 100000000000000000000", "1e20"), 1.0f);
  EXPECT_EQ(score("#### 7", "7.0"), 1.0f);
  EXPECT_EQ(score("#### 123456789012345678901234567890", "123456789012345678901234567890"), 1.0f);
  EXPECT_EQ(score("#### 123456789012345678901234567891", "123456789012345678901234567890"), 0.1f);
  EXPECT_EQ(score("#### 0.1000000000000000055511151231257827", "0.1"), 0.1f);  // the double nearest to 0.1
  EXPECT_EQ(score("#### 0.1", "0.1000000000000000000000000000001"), 0.1f);
  EXPECT_EQ(score("#### 0", "-0"), 1.0f);
  EXPECT_EQ(score("#### 0", "0e5"), 1.0f);
}

TEST(MatchNumbers, PowersOfTenCostNothing) {
  EXPECT_EQ(score("#### 1e999999999", "\"1e999999999\""), 1.0f);
  EXPECT_EQ(score("#### 10e999999998", "\"1e999999999\""), 1.0f);
  EXPECT_EQ(score("#### 1e999999998", "\"1e999999999\""), 0.1f);
  EXPECT_EQ(score("#### 1e-999999999", "0"), 0.1f);
  EXPECT_EQ(score("#### 0e999999999", "0"), 1.0f);
}

// However long a reply is, its last number is found in a moment, or none is.
TEST(MatchNumbers, LongRepliesCostLittle) {
  const auto with_many = [](const char* begin, const char* repeated, const char* end) {
    std::string text = begin;
    for (int i = 0; i < 1'000'000; ++i) text += repeated;
    return text.append(end);
  };
  EXPECT_EQ(score(with_many("5", " ", "72"), "72", ""), 1.0f);
  EXPECT_EQ(score(with_many("72 ", "9", ""), "72", ""), 0.0f);
  EXPECT_EQ(score(with_many("72\n1", ",1", ""), "72", ""), 0.0f);
  EXPECT_EQ(score(with_many("72", "(", ""), "72", ""), 1.0f);
}

TEST(MatchNumbers, TheLastNumberOfAText) {
  EXPECT_EQ(score("48 + 24 = 72", "72", ""), 1.0f);
  EXPECT_EQ(score("48 + 24", "24", ""), 0.0f);
  EXPECT_EQ(score("The area is 72 cm^2.", "72", ""), 1.0f);
  EXPECT_EQ(score("The area is 72 m².", "72", ""), 1.0f);
  EXPECT_EQ(score("It was 3 in 2020; the answer is -1/2.", "-0.5", ""), 1.0f);
  EXPECT_EQ(score("3 people pay USD5", "3", ""), 0.0f);
  EXPECT_EQ(score("5 \\text{ million}", "5000000", ""), 1.0f);
}

TEST(MatchNumbers, AFieldWithoutANumberOfItsOwnIsNamed) {
  for (const char* answer : {"\"1 234\"", "\"5 to 6\"", "\"0,5\"", "\"1/0\"", "true", "null", "\"#### \""}) try {
      score("#### 1", answer);
      ADD_FAILURE() << answer;
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("the field 'answer' holds no number"), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace dsengine

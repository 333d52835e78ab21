// The reward plugins on hand-worked answers.
#include <gtest/gtest.h>

#include "base/check.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

using testing::TestWithParam;

float score(const char* reward, OptionValues options, const char* reply, const char* metadata, double model_score = 0,
            double mean = 0, double sd = 0) {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
  const Item& item = registry.find(DSE_REWARD_ITEM, reward);
  RewardInstance instance(item, OptionSet(item, options));
  const dse_answer answer{sizeof(dse_answer), DSE_FINISH_EOS, "prompt", reply, metadata, model_score, mean, sd, 3};
  return instance.score({&answer, 1})[0];
}

OptionValues with(std::initializer_list<std::pair<const std::string, OptionVariant>> values) {
  OptionValues options;
  for (const auto& [name, value] : values) options[name] = {value, ""};
  return options;
}

// 1: right, 0.1: wrong in the right form, 0: neither.
float number(const char* reply, const char* truth = R"({"answer": "so 48 + 24 = 72\n#### 72"})") {
  return score("match", with({{"format_score", 0.1}}), reply, truth);
}

TEST(MatchReward, ReadsTheNumberAfterTheMarker) {
  EXPECT_EQ(number("It is 5.\n#### 72"), 1.0f);
  EXPECT_EQ(number("#### 72.0"), 1.0f);
  EXPECT_EQ(number("#### $72"), 1.0f);
  EXPECT_EQ(number("#### 72."), 1.0f);
  EXPECT_EQ(number("#### 5 then #### 72"), 1.0f);  // the last one counts
  EXPECT_EQ(number("#### 5, not 72"), 0.1f);
  EXPECT_EQ(number("####"), 0.0f);
  EXPECT_EQ(number("72"), 0.0f);
  EXPECT_EQ(number(""), 0.0f);
  EXPECT_EQ(number("#### -3", R"({"answer": "#### -3"})"), 1.0f);
  EXPECT_EQ(number("#### 3", R"({"answer": "#### -3"})"), 0.1f);
  EXPECT_EQ(number("#### 1,234,567", R"({"answer": "#### 1234567"})"), 1.0f);
  EXPECT_EQ(number("#### 0.5", R"({"answer": 0.5})"), 1.0f);
  EXPECT_EQ(number("#### .5", R"({"answer": "0.5"})"), 1.0f);
}

TEST(MatchReward, WithoutAMarkerTheLastNumberCounts) {
  const auto options = with({{"marker", std::string()}});
  EXPECT_EQ(score("match", options, "First 5, then 1,200.", R"({"answer": 1200})"), 1.0f);
  EXPECT_EQ(score("match", options, "First 1200, then 5", R"({"answer": 1200})"), 0.0f);
}

TEST(MatchReward, ExactAndRegex) {
  const auto exact = with({{"kind", std::string("exact")}, {"field", std::string("city")}});
  EXPECT_EQ(score("match", exact, " Paris\n", R"({"city": "Paris"})"), 1.0f);
  EXPECT_EQ(score("match", exact, "paris", R"({"city": "Paris"})"), 0.0f);
  const auto group =
      with({{"kind", std::string("regex")}, {"pattern", std::string("answer is (\\w+)")}, {"format_score", 0.2}});
  EXPECT_EQ(score("match", group, "the answer is Köln.", R"({"answer": "Köln"})"), 1.0f);
  EXPECT_EQ(score("match", group, "the answer is Bonn.", R"({"answer": "Köln"})"), 0.2f);
  EXPECT_EQ(score("match", group, "Köln", R"({"answer": "Köln"})"), 0.0f);
  const auto form = with({{"kind", std::string("regex")}, {"pattern", std::string("^<think>.*</think>")}});
  EXPECT_EQ(score("match", form, "<think>x</think> y", nullptr), 1.0f);
  EXPECT_EQ(score("match", form, "y", nullptr), 0.0f);
  // A pattern that would run for ages, and bytes that are no UTF-8, match nothing.
  const auto slow = with({{"kind", std::string("regex")}, {"pattern", std::string("^(?:a+)+$")}});
  EXPECT_EQ(score("match", slow, (std::string(40, 'a') + "!").c_str(), nullptr), 0.0f);
  EXPECT_EQ(score("match", form, "\xff\xfe", nullptr), 0.0f);
}

TEST(MatchReward, SaysWhatIsWrong) {
  EXPECT_THROW(score("match", {}, "#### 1", nullptr), UserError);
  EXPECT_THROW(score("match", {}, "#### 1", R"({"other": 1})"), UserError);
  EXPECT_THROW(score("match", {}, "#### 1", R"({"answer": "none"})"), UserError);
  EXPECT_THROW(score("match", with({{"kind", std::string("regex")}, {"pattern", std::string("(")}}), "x", nullptr),
               UserError);
  EXPECT_THROW(score("match", with({{"kind", std::string("fuzzy")}}), "x", nullptr), UserError);
}

TEST(ModelReward, IsInStandardDeviations) {
  EXPECT_FLOAT_EQ(score("model", {}, "x", nullptr, 5, 2, 1.5), 2.0f);
  EXPECT_FLOAT_EQ(score("model", {}, "x", nullptr, 5, 0, 0), 5.0f);  // not recorded
  EXPECT_FLOAT_EQ(score("model", with({{"normalize", false}, {"shift", 1.0}, {"scale", 0.5}}), "x", nullptr, 5, 2, 1.5),
                  3.0f);
}

}  // namespace
}  // namespace dsengine

// The engine's keys beside a reward's own options.
#include "rl/reward_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rl/odd_rewards.h"

namespace dsengine {
namespace {

using testing::HasSubstr;

RewardRules rules_of(const char* reward, const OptionValues& given) {
  return RewardRules::of(odd_plugins().find(DSE_REWARD_ITEM, reward), given);
}

TEST(RewardRules, AreTheEnginesKeysAndLeaveThePluginItsOwn) {
  const auto none = rules_of("plain", {});
  EXPECT_EQ(none.deadline, 0);
  EXPECT_FALSE(none.stop_on_failure);
  EXPECT_EQ(none.max_failures, 0);
  const auto all = rules_of(
      "plain",
      {{"deadline", option(2.5)}, {"on_failure", option(std::string("stop"))}, {"max_failures", option(int64_t{4})}});
  EXPECT_EQ(all.deadline, 2.5);
  EXPECT_TRUE(all.stop_on_failure);
  EXPECT_EQ(all.max_failures, 4);
  EXPECT_EQ(all.options.to_toml(), "") << "the plugin has none";
}

TEST(RewardRules, KeysThatDoNotFitAreTold) {
  const auto error = [](const char* key, const OptionVariant& value) {
    return error_of([&] { rules_of("plain", {{key, option(value)}}); });
  };
  EXPECT_THAT(error("deadline", std::string("soon")), HasSubstr("run.toml:7: reward: wants real"));
  EXPECT_THAT(error("deadline", -1.0), HasSubstr("run.toml:7: reward: -1.0 is outside"));
  EXPECT_THAT(error("on_failure", std::string("dorp")), HasSubstr("did you mean \"drop\"?"));
  EXPECT_THAT(error("max_failures", int64_t{-1}), HasSubstr("run.toml:7"));
  EXPECT_THAT(error("colour", int64_t{1}), HasSubstr("has no option 'colour'"));
}

TEST(RewardRules, APluginKeepsItsOwnOptionsOfThoseNames) {
  const OptionValues own{
      {"deadline", option(std::string("monday"))}, {"on_failure", option(true)}, {"max_failures", option(2.5)}};
  const auto score = [](const OptionValues& given) {
    return odd_scorer({odd_reward("own_keys", given)}).score(answers_of({1}))[0].total;
  };
  EXPECT_EQ(score(own), 1);
  EXPECT_EQ(score({}), -1);
  const auto rules = rules_of("own_keys", own);
  EXPECT_EQ(rules.deadline, 0);
  EXPECT_FALSE(rules.stop_on_failure);
  EXPECT_EQ(rules.max_failures, 0);
}

}  // namespace
}  // namespace dsengine

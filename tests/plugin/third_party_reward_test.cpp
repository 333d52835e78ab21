// The example of a reward by others (examples/third_party_reward): DAPO's equation 13 by hand.
#include "plugin/fixtures.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

TEST(Overlong, PenalisesTheLastTokensBeforeTheLimit) {
  const PluginRegistry registry{{std::filesystem::path(DSE_BINARY_DIR) / "tests/app/plugins"}};
  const Item& item = registry.find(DSE_REWARD_ITEM, "overlong");
  const OptionValues given{{"max_length", {int64_t{100}, ""}}, {"cache", {int64_t{20}, ""}}, {"penalty", {2.0, ""}}};
  RewardInstance reward(item, OptionSet(item, given));
  EXPECT_TRUE(reward.needs_model());
  const auto score = [&](int64_t tokens) {
    return reward.score(
        std::vector<dse_answer>{{sizeof(dse_answer), DSE_FINISH_EOS, "p", "r", nullptr, 5.0, 3.0, 4.0, tokens}})[0];
  };
  // The model's (5 - 3) / 4 = 0.5, less 2 * (tokens - 80) / 20 between 80 and 100 tokens.
  EXPECT_FLOAT_EQ(score(1), 0.5f);
  EXPECT_FLOAT_EQ(score(80), 0.5f);
  EXPECT_FLOAT_EQ(score(85), 0.0f);
  EXPECT_FLOAT_EQ(score(100), -1.5f);
  EXPECT_FLOAT_EQ(score(300), -1.5f);
  const OptionValues wrong{{"max_length", {int64_t{10}, ""}}, {"cache", {int64_t{20}, ""}}};
  EXPECT_THAT(error_of([&] { RewardInstance(item, OptionSet(item, wrong)); }), testing::HasSubstr("cache"));
}

}  // namespace
}  // namespace dsengine

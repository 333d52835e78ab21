// The example of a reward by others (examples/third_party_reward): DAPO's equation 13 by hand.
#include "plugin/fixtures.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

TEST(Overlong, PenalisesTheLastTokensBeforeTheLimit) {
  const PluginRegistry registry{{std::filesystem::path(DSE_BINARY_DIR) / "tests/app/plugins"}};
  const Item& item = registry.find(DSE_REWARD_ITEM, "overlong");
  const OptionValues given{{"max_length", {int64_t{100}, ""}}, {"cache", {int64_t{20}, ""}}};
  RewardInstance reward(item, OptionSet(item, given));
  const auto score = [&](int64_t tokens) {
    return reward.score(
        std::vector<dse_answer>{{sizeof(dse_answer), DSE_FINISH_EOS, "p", "r", nullptr, 0, 0, 1, tokens}})[0];
  };
  EXPECT_FLOAT_EQ(score(1), 0);
  EXPECT_FLOAT_EQ(score(80), 0);
  EXPECT_FLOAT_EQ(score(85), -0.25);  // (80 - 85) / 20
  EXPECT_FLOAT_EQ(score(99), -0.95);
  EXPECT_FLOAT_EQ(score(100), -1);
  EXPECT_FLOAT_EQ(score(300), -1);
  const OptionValues wrong{{"max_length", {int64_t{10}, ""}}, {"cache", {int64_t{20}, ""}}};
  EXPECT_THAT(error_of([&] { RewardInstance(item, OptionSet(item, wrong)); }), testing::HasSubstr("cache"));
}

}  // namespace
}  // namespace dsengine

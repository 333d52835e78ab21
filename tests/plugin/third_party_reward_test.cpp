// The example of a reward by others (examples/third_party_reward), on answers counted by hand.
#include "plugin/fixtures.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

TEST(Repetition, IsTheShareOfNGramsThatStoodBefore) {
  const PluginRegistry registry{{std::filesystem::path(DSE_BINARY_DIR) / "tests/app/plugins"}};
  const Item& item = registry.find(DSE_REWARD_ITEM, "repetition");
  RewardInstance reward(item, OptionSet(item, {{"n", {int64_t{2}, ""}}}));
  const auto score = [&](const char* reply) {
    return reward.score(
        std::vector<dse_answer>{{sizeof(dse_answer), DSE_FINISH_EOS, "p", reply, nullptr, 0, 0, 1, 3}})[0];
  };
  EXPECT_EQ(score(""), 0);
  EXPECT_EQ(score("one"), 0);
  EXPECT_EQ(score("one two three one"), 0);
  EXPECT_FLOAT_EQ(score("a b  a b\n"), -1.0f / 3);   // ab, ba, ab
  EXPECT_FLOAT_EQ(score("no no no no no"), -0.75f);  // one of four is new
}

}  // namespace
}  // namespace dsengine

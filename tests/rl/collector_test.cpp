// A step's experience: groups without a signal replaced, scores of several rewards summed, a critic asked in its own
// words.
#include "rl/collector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "rl/forward.h"
#include "rl/tiny_rollouts.h"

namespace dsengine {
namespace {

class Collecting : public TinyRollouts {
 protected:
  Experience collect(Scorer& scores, int64_t step = 0) {
    means = {};
    Collector collector(config, 2, data, 9, 4);
    return collector.collect(step, {uint64_t(step * config.batch_size), config.batch_size}, rollout(), &scores, phases,
                             means);
  }
  static std::map<int64_t, std::vector<float>> groups(const Experience& e) {
    std::map<int64_t, std::vector<float>> result;
    for (int64_t r = 0; r < e.row_count(); ++r) result[e.prompt[size_t(r)]].push_back(e.score[size_t(r)]);
    return result;
  }

  Phases phases;
  MetricMeans means;
};

TEST_F(Collecting, GroupsWithoutASignalAreReplaced) {
  auto scores = scorer({regex_reward("", "e")});
  const Experience plain = collect(scores);
  int64_t flat = 0;
  for (const auto& [prompt, group] : groups(plain))
    flat += *std::max_element(group.begin(), group.end()) == *std::min_element(group.begin(), group.end());
  ASSERT_GT(flat, 0);
  ASSERT_LT(flat, 6);
  EXPECT_TRUE(std::isnan(means.mean("groups_replaced")));

  config.dynamic_sampling = true;
  const Experience full = collect(scores);
  EXPECT_EQ(full.row_count(), 18);
  const auto kept = groups(full);
  EXPECT_EQ(kept.size(), 6u);
  for (const auto& [prompt, group] : kept)
    EXPECT_NE(*std::max_element(group.begin(), group.end()), *std::min_element(group.begin(), group.end()));
  EXPECT_GE(means.mean("groups_replaced"), double(flat));
  // Once more, and another step: the same step is the same, another is another.
  const Experience again = collect(scores), other = collect(scores, 1);
  EXPECT_EQ(again.token, full.token);
  EXPECT_NE(other.token, full.token);
}

// Means of the parts are of the rows that the step keeps, so that they add up to the reward.
TEST_F(Collecting, PartsAddUpWhereGroupsAreReplaced) {
  config.dynamic_sampling = true;
  auto scores = scorer({regex_reward("e", "e", 2), regex_reward("letters", "[a-m]", 1)});
  collect(scores);
  EXPECT_GT(means.mean("groups_replaced"), 0);
  EXPECT_NEAR(means.mean("reward"), 2 * means.mean("reward_e") + means.mean("reward_letters"), 1e-6);
}

TEST_F(Collecting, WhereNothingSaysAnythingTheStepGoesOn) {
  config.dynamic_sampling = true, config.max_refills = 3;
  auto scores = scorer({regex_reward("", "no answer holds this")});
  const Experience e = collect(scores);
  EXPECT_EQ(e.row_count(), 18);
  EXPECT_EQ(means.mean("groups_replaced"), 18);  // six groups, three rounds
}

TEST_F(Collecting, RewardsAreSummedByWeight) {
  auto first = scorer({regex_reward("", "e")}), second = scorer({regex_reward("", "[a-m]")});
  const Experience one = collect(first);
  const Experience two = collect(second);
  auto both = scorer({regex_reward("e", "e", 0.5), regex_reward("letters", "[a-m]", -2)});
  const Experience sum = collect(both);
  double e = 0, letters = 0;
  for (size_t r = 0; r < sum.score.size(); ++r) {
    EXPECT_FLOAT_EQ(sum.score[r], 0.5f * one.score[r] - 2 * two.score[r]);
    e += one.score[r], letters += two.score[r];
  }
  EXPECT_NEAR(means.mean("reward_e"), e / 18, 1e-6);
  EXPECT_NEAR(means.mean("reward_letters"), letters / 18, 1e-6);
  EXPECT_NEAR(means.mean("reward"), (0.5 * e - 2 * letters) / 18, 1e-6);
}

// A critic with a chat template of its own is asked in it, and values the actor's own tokens.
TEST_F(Collecting, ACriticIsAskedInItsOwnWords) {
  const Model critic = with_values(actor);
  at::NoGradGuard no_grad;
  write_text(folder / "tokenizer_config.json", "{}");
  write_text(folder / "chat_template.jinja", "<{{ messages[0].content }}>{% if add_generation_prompt %}!{% endif %}");
  data.ask_critic({text.tokenizer, text.eos, ChatFormat::of(folder)}, "the critic");
  auto scores = scorer({regex_reward("", "e")});
  const Experience e = collect(scores);
  const Selection actors = select(e, Device::host()), critics = select(e, Device::host(), true);
  const at::Tensor values = forward(critic, critics, 1, false, false).value;
  EXPECT_TRUE(at::equal(actors.targets, critics.targets));  // the answers' own tokens
  EXPECT_FALSE(at::equal(actors.batch.tokens, critics.batch.tokens));
  for (int64_t r = 0; r < e.row_count(); ++r) {
    const ExperienceRow& row = *e.rows[size_t(r)];
    const std::vector<TokenId> asked(row.tokens.begin(), row.tokens.begin() + row.answer_begin);
    std::string question = text.tokenizer.decode(asked, true);
    question = question.substr(question.find("Question"), question.find('?') + 1 - question.find("Question"));
    auto ids = text.tokenizer.encode("<" + question + ">!", false);
    const auto begin = int64_t(ids.size());
    ids.insert(ids.end(), row.tokens.begin() + row.answer_begin, row.tokens.end());
    const at::Tensor all = critic.values(critic.hidden(pack(Device::host(), {ids})), at::arange(int64_t(ids.size())));
    const int64_t size = row.answer_size();
    EXPECT_TRUE(at::allclose(values.narrow(0, e.offsets[size_t(r)], size), all.narrow(0, begin - 1, size), 0, 1e-5));
  }
}

TEST_F(Collecting, AnswersThatEndByThemselvesAreCounted) {
  config.stop = {"e"};
  auto scores = scorer({regex_reward("", "e")});
  const Experience rows = collect(scores);
  const auto cut = std::ranges::count(rows.finish, DSE_FINISH_LENGTH);
  EXPECT_GT(cut, 0);
  EXPECT_GT(std::ranges::count(rows.finish, DSE_FINISH_STOP), 0);
  EXPECT_NEAR(means.mean("eos_fraction"), 1 - double(cut) / double(rows.row_count()), 1e-12);
}

}  // namespace
}  // namespace dsengine

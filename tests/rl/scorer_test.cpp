// The reward of answers: weighted sums by hand, what has failed and when that ends the run, and a reward model that
// reads the conversation in its own words.
#include "rl/scorer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <csignal>

#include "rl/odd_rewards.h"
#include "rl/tiny_rollouts.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<AnswerScore> score(const std::vector<RewardSource>& sources, const std::vector<int64_t>& token_counts) {
  return odd_scorer(sources).score(answers_of(token_counts));
}
std::string failure_of(const std::vector<RewardSource>& sources, const std::vector<int64_t>& token_counts) {
  return error_of([&] { score(sources, token_counts); });
}

// A double beyond float32's greatest number becomes infinite when the plugin narrows it.
TEST(Scores, AnInfiniteScoreHasFailed) {
  const auto scores = score({odd_reward("infinite")}, {1, 2, 3, 4});
  EXPECT_EQ(scores[0].total, -1);
  EXPECT_TRUE(std::isnan(scores[1].total));
  EXPECT_TRUE(std::isnan(scores[1].parts[0]));
  EXPECT_EQ(scores[2].total, -3);
  EXPECT_TRUE(std::isnan(scores[3].total));
}

TEST(Scores, ASumThatIsInfiniteHasFailed) {
  const auto scores = score({odd_reward("large", {}, 10), odd_reward("plain")}, {1});
  EXPECT_TRUE(std::isnan(scores[0].total));
  EXPECT_EQ(scores[0].parts[1], -1);
  EXPECT_EQ(score({odd_reward("large")}, {1})[0].total, 3e38f);
}

TEST(Scores, OnFailureStopEndsTheRunAtTheFirst) {
  EXPECT_THAT(
      failure_of({odd_reward("infinite", {{"on_failure", option(std::string("stop"))}})}, {1, 3, 2, 4}),
      AllOf(HasSubstr("reward 'infinite': answer 3 of 4: the score is inf"), HasSubstr("on_failure is \"stop\"")));
  EXPECT_THROW(score({odd_reward("infinite", {{"on_failure", option(std::string("stop"))}})}, {2}), RewardError);
}

TEST(Scores, MoreFailuresInARowThanAllowedEndTheRun) {
  const RewardSource three = odd_reward("always_infinite", {{"max_failures", option(int64_t{3})}});
  EXPECT_EQ(failure_of({three}, {1, 2, 3}), "");
  EXPECT_THAT(failure_of({three}, {1, 2, 3, 4}),
              AllOf(HasSubstr("answer 4 of 4: the score is -inf"), HasSubstr("the failure number 4 in a row"),
                    HasSubstr("max_failures is 3")));
  const RewardSource one = odd_reward("infinite", {{"max_failures", option(int64_t{1})}});
  EXPECT_EQ(failure_of({one}, {1, 2, 1, 2, 1}), "") << "not in a row";
  EXPECT_NE(failure_of({one}, {1, 2, 2}), "");
}

// The next call goes on counting where the last one ended.
TEST(Scores, FailuresAreCountedAcrossCalls) {
  Scorer scorer = odd_scorer({odd_reward("infinite", {{"max_failures", option(int64_t{3})}})});
  scorer.score(answers_of({1, 2, 2}));
  scorer.score(answers_of({2}));
  EXPECT_THAT(error_of([&] { scorer.score(answers_of({4})); }),
              AllOf(HasSubstr("answer 1 of 1"), HasSubstr("the failure number 4 in a row")));
  Scorer again = odd_scorer({odd_reward("infinite", {{"max_failures", option(int64_t{3})}})});
  again.score(answers_of({2, 2, 2}));
  again.score(answers_of({1, 2, 2, 2}));  // one that did not fail lies between
}

// plain: -n for n tokens. infinite: the same for odd n, else no number. By hand: 2 * -1 - 0.5 * -1, and so on.
TEST(Scores, AreTheWeightedSumOfTheirSources) {
  RewardSource other = odd_reward("plain", {}, -0.5);
  other.name = "other";
  const auto scores = score({odd_reward("plain", {}, 2), other}, {1, 2, 5});
  EXPECT_EQ(scores[0].total, -1.5f);
  EXPECT_EQ(scores[1].total, -3.0f);
  EXPECT_EQ(scores[2].total, -7.5f);
  EXPECT_THAT(scores[2].parts, ElementsAre(-5, -5)) << "before their weights";
}

TEST(Scores, ASumWithoutAllItsSourcesIsNone) {
  Scorer scorer = odd_scorer({odd_reward("plain", {}, 2), odd_reward("infinite")});
  const auto scores = scorer.score(answers_of({1, 2}));
  EXPECT_EQ(scores[0].total, -3);
  EXPECT_TRUE(std::isnan(scores[1].total));
  EXPECT_EQ(scores[1].parts[0], -2);
  EXPECT_TRUE(std::isnan(scores[1].parts[1]));
  MetricMeans means;
  for (const auto& s : scores) scorer.add_means(s, means);
  EXPECT_EQ(means.mean("reward_plain"), -1.5);
  EXPECT_EQ(means.mean("reward_infinite"), -1) << "of those that it has";
}

TEST(Scores, MeansBearTheNamesOfSeveralSourcesAlone) {
  RewardSource named = odd_reward("plain");
  named.name = "brief";
  Scorer two = odd_scorer({named, odd_reward("large")}), one = odd_scorer({named});
  MetricMeans of_two, of_one;
  two.add_means(two.score(answers_of({3}))[0], of_two);
  one.add_means(one.score(answers_of({3}))[0], of_one);
  Json names_of_two = Json::object(), names_of_one = Json::object();
  of_two.write_to(names_of_two), of_one.write_to(names_of_one);
  EXPECT_EQ(names_of_two, (Json{{"reward_brief", -3.0}, {"reward_large", double(3e38f)}}));
  EXPECT_EQ(names_of_one, Json::object()) << "it is the reward itself";
}

// The step in hand is left where a stop came, before and after it is scored.
TEST(Scores, AStopLeavesTheStep) {
  Scorer scorer = odd_scorer({odd_reward("plain")});
  const StopSignal stop;
  scorer.set_watch({.stop = &stop});
  EXPECT_EQ(scorer.score(answers_of({1}))[0].total, -1);
  std::raise(SIGTERM);
  EXPECT_THROW(scorer.score(answers_of({1})), StepLeft);
}

class ScoresOfModels : public TinyRollouts {
 protected:
  std::vector<ScoredAnswer> answers_to(size_t count) {
    return rollout().to_score(rollout().generate(prompts(count), 0));
  }
};

// model_reward.cpp: (value - mean) / deviation where training recorded them beside the model.
TEST_F(ScoresOfModels, AreScaledByWhatTrainingRecorded) {
  const Model model = with_values(actor);
  save_model_to(model, folder / "judge", directory);
  ScoreMoments{0.5, 0.25}.write(folder / "judge");
  const auto answers = answers_to(2);
  const auto raw = scorer({raw_model_reward()}, {folder / "judge"}).score(answers);
  const auto scaled = scorer({{"", "model", "", 1, {}}}, {folder / "judge"}).score(answers);
  for (size_t i = 0; i < answers.size(); ++i) {
    const double value = last_values(model, {answers[i].tokens})[0];
    EXPECT_FLOAT_EQ(raw[i].total, float(value));
    EXPECT_FLOAT_EQ(scaled[i].total, float((value - 0.5) / 0.25));
  }
}

// A reward model whose tokenizer numbers its tokens otherwise reads the conversation in its own ids.
TEST_F(ScoresOfModels, OneWithAnotherVocabularyReadsText) {
  const Model model = with_values(actor);
  const auto same = folder / "same", other = folder / "other";
  save_model_to(model, same, directory), save_model_to(model, other, directory);
  // Two letters change places in the vocabulary, and so do their embeddings: the same model of text.
  Json tokenizer = read_json(other / "tokenizer.json");
  auto& vocabulary = tokenizer["model"]["vocab"];
  const int64_t a = vocabulary.at("e"), b = vocabulary.at("o");
  vocabulary["e"] = b, vocabulary["o"] = a;
  write_text(other / "tokenizer.json", tokenizer.dump());
  const Model swapped = model.clone(ModelKind::value);
  at::NoGradGuard no_grad;
  for (const auto& t : swapped.tensors())
    if (t.spec->tensor == "model.embed_tokens.weight") {
      at::Tensor table = t.tensor;
      const at::Tensor row = table[a].clone();
      table[a].copy_(table[b]), table[b].copy_(row);
    }
  save_model_to(swapped, folder / "weights", {});
  write_text(other / "model.safetensors", read_text(folder / "weights/model.safetensors"));

  auto by_ids = scorer({raw_model_reward()}, {same}), by_text = scorer({raw_model_reward()}, {other});
  const auto answers = answers_to(6);
  const auto ids = by_ids.score(answers), texts = by_text.score(answers);
  int64_t differ = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_FLOAT_EQ(ids[i].total, float(last_values(model, {answers[i].tokens})[0]));
    auto encoded = text.prompt_tokens(answers[i].turns);
    const auto reply = text.tokenizer.encode(" " + answers[i].reply, false);
    encoded.insert(encoded.end(), reply.begin(), reply.end());
    if (answers[i].finish == Finish::eos) encoded.push_back(text.eos[0]);
    EXPECT_NEAR(texts[i].total, last_values(model, {encoded})[0], 1e-5);
    differ += std::abs(texts[i].total - texts[0].total) > 1e-3;
  }
  EXPECT_GT(differ, 0);
}

// One whose chat template is another than the actor's reads the conversation in its own, whatever its vocabulary.
TEST_F(ScoresOfModels, OneWithAChatTemplateOfItsOwnIsAskedInIt) {
  const Model model = with_values(actor);
  const auto own = folder / "own";
  save_model_to(model, own, directory);
  write_text(own / "chat_template.jinja",
             "{% for m in messages %}{{ '[' + m.role + ']' + m.content + ';' }}{% endfor %}"
             "{% if add_generation_prompt %}[assistant]{% endif %}");
  auto scores = scorer({raw_model_reward()}, {own});
  const auto answers = answers_to(3);
  const auto made = scores.score(answers);
  for (size_t i = 0; i < answers.size(); ++i) {
    const bool ended = answers[i].finish != Finish::length;
    auto ids = text.tokenizer.encode("[user]" + answers[i].turns[0].content + ";[assistant]", false);
    const auto reply = text.tokenizer.encode(answers[i].reply + ";", false);
    ids.insert(ids.end(), reply.begin(), reply.end());
    if (ended) ids.push_back(text.eos[0]);
    EXPECT_NEAR(made[i].total, last_values(model, {ids})[0], 1e-5);
    EXPECT_GT(std::abs(made[i].total - last_values(model, {answers[i].tokens})[0]), 1e-4);
  }
}

}  // namespace
}  // namespace dsengine

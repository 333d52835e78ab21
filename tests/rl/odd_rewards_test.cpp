// Rewards that fail, are slow, or have options of the names that the engine has keys of (tests/abi/odd_reward.cpp).
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <sstream>

#include "../model/golden_models.h"
#include "base/check.h"
#include "rl/scorer.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

const PluginRegistry& odd_plugins() {
  static const auto file = [](const char* name) {
    return PluginFile{fs::path(DSE_BINARY_DIR) / "tests/abi" / fmt::format("libdse_{}.so", name), ""};
  };
  static const PluginRegistry registry({}, {file("plain"), file("infinite"), file("always_infinite"), file("large"),
                                            file("own_keys"), file("never_returns")});
  return registry;
}

std::vector<AnswerScore> score(const std::vector<RewardSource>& sources, std::vector<int64_t> token_counts) {
  Scorer scorer(sources, std::vector<std::shared_ptr<const RewardModel>>(sources.size()), odd_plugins());
  std::vector<ScoredAnswer> answers;
  for (const auto count : token_counts) answers.push_back({"p", "r", "", {}, count});
  return scorer.score(answers);
}

std::string error_of(const std::vector<RewardSource>& sources, const std::vector<int64_t>& token_counts) {
  try {
    score(sources, token_counts);
  } catch (const UserError& e) {
    return e.what();
  }
  return "";
}

RewardSource reward(const char* name, OptionValues options = {}, double weight = 1) {
  return {"", name, "", weight, std::move(options)};
}
OptionValue option(const OptionVariant& value) { return {value, "run.toml:7: reward"}; }
bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// A double beyond float32's greatest number becomes infinite when the plugin narrows it.
TEST(OddReward, AnInfiniteScoreHasFailed) {
  const auto scores = score({reward("infinite")}, {1, 2, 3, 4});
  EXPECT_EQ(scores[0].total, -1);
  EXPECT_TRUE(std::isnan(scores[1].total));
  EXPECT_TRUE(std::isnan(scores[1].parts[0]));
  EXPECT_EQ(scores[2].total, -3);
  EXPECT_TRUE(std::isnan(scores[3].total));
}

TEST(OddReward, ASumThatIsInfiniteHasFailed) {
  const auto scores = score({reward("large", {}, 10), reward("plain")}, {1});
  EXPECT_TRUE(std::isnan(scores[0].total));
  EXPECT_EQ(scores[0].parts[1], -1);
  EXPECT_EQ(score({reward("large")}, {1})[0].total, 3e38f);
}

TEST(OddReward, MayEndTheRun) {
  const auto stop = error_of({reward("infinite", {{"on_failure", option(std::string("stop"))}})}, {1, 3, 2, 4});
  EXPECT_TRUE(contains(stop, "reward 'infinite': answer 3 of 4: the score is inf")) << stop;
  const RewardSource three = reward("always_infinite", {{"max_failures", option(int64_t{3})}});
  EXPECT_EQ(error_of({three}, {1, 2, 3}), "");
  const auto many = error_of({three}, {1, 2, 3, 4});
  EXPECT_TRUE(contains(many, "answer 4 of 4: the score is -inf") && contains(many, "max_failures is 3")) << many;
  const RewardSource one = reward("infinite", {{"max_failures", option(int64_t{1})}});
  EXPECT_EQ(error_of({one}, {1, 2, 1, 2, 1}), "");  // in a row
  EXPECT_NE(error_of({one}, {1, 2, 2}), "");
}

TEST(OddReward, KeysThatDoNotFitAreTold) {
  const auto error = [](const char* key, const OptionVariant& value) {
    return error_of({reward("plain", {{key, option(value)}})}, {1});
  };
  EXPECT_TRUE(contains(error("deadline", std::string("soon")), "run.toml:7: reward: wants real"));
  EXPECT_TRUE(contains(error("deadline", -1.0), "run.toml:7: reward: -1.0 is outside"));
  EXPECT_TRUE(contains(error("on_failure", std::string("dorp")), "did you mean \"drop\"?"));
  EXPECT_TRUE(contains(error("max_failures", int64_t{-1}), "run.toml:7"));
  EXPECT_TRUE(contains(error("colour", int64_t{1}), "has no option 'colour'"));
}

TEST(OddReward, APluginKeepsItsOwnOptionsOfThoseNames) {
  const OptionValues own{
      {"deadline", option(std::string("monday"))}, {"on_failure", option(true)}, {"max_failures", option(2.5)}};
  EXPECT_EQ(score({reward("own_keys", own)}, {1})[0].total, 1);
  EXPECT_EQ(score({reward("own_keys")}, {1})[0].total, -1);
  const auto rules = RewardRules::of(odd_plugins().find(DSE_REWARD_ITEM, "own_keys"), own);
  EXPECT_EQ(rules.deadline, 0);
  EXPECT_FALSE(rules.stop_on_failure);
  EXPECT_EQ(rules.max_failures, 0);
}

class Watched : public testing::Test {
 protected:
  Watched() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
  // Calls the reward that never returns, watched so.
  static void call(CallWatch::Rules rules, double deadline) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(std::cerr)));
    Scorer scorer({reward("never_returns", {{"deadline", option(deadline)}})}, {nullptr}, odd_plugins());
    scorer.set_watch(std::move(rules));
    scorer.score({{"p", "r", "", {}, 1}});
  }
};

TEST_F(Watched, PastItsDeadlineTheRunSavesAndEnds) {
  const auto save = [] { std::cerr << "saved\n"; };
  EXPECT_EXIT(call({.save = save, .line_every = std::chrono::milliseconds(200)}, 0.5), testing::ExitedWithCode(1),
              "waiting for=\"reward 'never_returns', asked for 1 answers\"(.|\n)*saved\n(.|\n)*dsengine: error: reward "
              "'never_returns'.*deadline of 0.5 s.*cannot be interrupted");
  const auto fails = [] { throw UserError("the disk is full"); };
  EXPECT_EXIT(call({.save = fails}, 0.1), testing::ExitedWithCode(1), "the disk is full(.|\n)*dsengine: error: reward");
}

TEST_F(Watched, AStopDoesNotWaitForIt) {
  const auto stopped = [] {
    const StopSignal stop;
    std::raise(SIGTERM);
    CallWatch watch(
        "reward 'x'",
        {.stop = &stop, .save = [] { std::cerr << "saved\n"; }, .stop_patience = std::chrono::milliseconds(100)});
    for (;;) sleep(1);
  };
  EXPECT_EXIT(stopped(), testing::ExitedWithCode(128 + SIGTERM), "saved");
}

TEST(CallWatch, ACallThatComesBackIsLeftAlone) {
  const StopSignal stop;
  std::raise(SIGTERM);
  for (int i = 0; i < 100; ++i) CallWatch("reward 'x'", {.deadline = 5, .stop = &stop, .save = [] { FAIL(); }});
}

// The step in hand is left where a stop came, before and after it is scored.
TEST(Scorer, LeavesTheStepWhereAStopCame) {
  Scorer scorer({reward("plain")}, {nullptr}, odd_plugins());
  const StopSignal stop;
  scorer.set_watch({.stop = &stop});
  EXPECT_EQ(scorer.score({{"p", "r", "", {}, 1}})[0].total, -1);
  std::raise(SIGTERM);
  EXPECT_THROW(scorer.score({{"p", "r", "", {}, 1}}), StepLeft);
}

}  // namespace
}  // namespace dsengine

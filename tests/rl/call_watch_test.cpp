// Calls of rewards that do not come back, watched from beside.
#include "rl/call_watch.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <csignal>
#include <iostream>

#include "rl/odd_rewards.h"

namespace dsengine {
namespace {

class Watched : public testing::Test {
 protected:
  Watched() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
  // Calls the reward that never returns, watched so.
  static void call(CallWatch::Rules rules, double deadline) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(std::cerr)));
    Scorer scorer = odd_scorer({odd_reward("never_returns", {{"deadline", option(deadline)}})});
    scorer.set_watch(std::move(rules));
    scorer.score(answers_of({1}));
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

}  // namespace
}  // namespace dsengine

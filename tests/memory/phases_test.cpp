// Phases: who is told when, in which phase memory is counted, and what a step's line gets of them.
#include "memory/phases.h"

#include <gtest/gtest.h>

namespace dsengine {
namespace {

// A phase whose begin fails is not entered: what it stands in goes on, and who waits for its end is told.
TEST(Phases, ABeginThatFailsIsAnEnd) {
  Ledger ledger;
  Phases phases(ledger);
  int left = 0;
  phases.on_enter(Phase::generate, [] { throw std::runtime_error("no memory"); });
  phases.on_leave(Phase::generate, [&] { ++left; });
  EXPECT_THROW((void)phases.enter(Phase::generate), std::runtime_error);
  EXPECT_EQ(left, 1);
  { const auto phase = phases.enter(Phase::score); }
  EXPECT_EQ(left, 1);
}

TEST(Phases, WhoWaitsIsToldAtBothEnds) {
  Ledger ledger;
  Phases phases(ledger);
  std::string told;
  phases.on_enter(Phase::generate, [&] { told += "g"; });
  phases.on_leave(Phase::generate, [&] { told += "G"; });
  phases.on_leave(Phase::generate, [&] { told += "H"; });
  phases.on_enter(Phase::score, [&] { told += "s"; });
  phases.on_leave(Phase::score, [&] { told += "S"; });
  {
    const auto outer = phases.enter(Phase::generate);
    EXPECT_EQ(told, "g");
    const auto same = phases.enter(Phase::generate);  // it goes on
    {
      const auto inner = phases.enter(Phase::score);
      EXPECT_EQ(told, "gGHs");
    }
    EXPECT_EQ(told, "gGHsSg");
  }
  EXPECT_EQ(told, "gGHsSgGH");
}

TEST(Phases, WhatIsHandedBackAtTheEndIsNotOfTheNext) {
  Ledger ledger;
  Phases phases(ledger);
  phases.on_leave(Phase::generate, [&] { ledger.release(MemoryTag::kv_cache, 4 << 20); });
  const Charge weights(ledger, MemoryTag::weights, 1 << 20);
  phases.restart();
  {
    const auto phase = phases.enter(Phase::generate);
    ledger.charge(MemoryTag::kv_cache, 4 << 20);
  }
  {
    const auto phase = phases.enter(Phase::critic);
    const Charge activations(ledger, MemoryTag::activations, 2 << 20);
  }
  Json line;
  phases.write_to(line);
  EXPECT_EQ(line.at("memory_weights_mb"), 1);
  EXPECT_EQ(line.at("memory_kv_cache_mb"), 4);
  EXPECT_EQ(line.at("memory_activations_mb"), 2);
  EXPECT_EQ(line.at("memory_moments_mb"), 0);
  EXPECT_EQ(line.at("memory_peak_mb"), 5);
  EXPECT_EQ(line.at("memory_peak_generate_mb"), 5);
  EXPECT_EQ(line.at("memory_peak_train_mb"), 3);
  EXPECT_EQ(line.at("memory_peak_score_mb"), 0);
}

TEST(Phases, SecondsSumToTheWhole) {
  Ledger ledger;
  Phases phases(ledger);
  { const auto phase = phases.enter(Phase::score); }
  Json line;
  phases.write_to(line);
  double sum = 0;
  for (const char* name : kChoices<Phase>) {
    const double seconds = line.at(std::string("seconds_") + name);
    EXPECT_GE(seconds, 0);
    sum += seconds;
  }
  EXPECT_GT(sum, 0);
  EXPECT_DOUBLE_EQ(line.at("seconds"), sum);
  phases.restart();
  phases.write_to(line);
  EXPECT_EQ(line.at("seconds_score"), 0);
}

}  // namespace
}  // namespace dsengine

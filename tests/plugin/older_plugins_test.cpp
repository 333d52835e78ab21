// Plugins built against the headers of an older minor version, which are kept in tests/abi, go on working.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "plugin/fixtures.h"
#include "plugin/handed.h"
#include "plugin/instance.h"
#include "plugin/registry.h"
#include "plugin/sample_batch.h"

namespace dsengine {
namespace {

dse_answer answer(const char* reply, double score) {
  return {sizeof(dse_answer), DSE_FINISH_EOS, "p", reply, nullptr, score, 0, 1, 1};
}

TEST(OlderPlugins, ARewardOfMinorOneScoresThreeAnswers) {
  const std::string file = std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_older_reward.so";
  const PluginRegistry registry({}, {{file, ""}}, {});
  const Item& item = registry.find(DSE_REWARD_ITEM, "older_reward");
  EXPECT_EQ(item.abi_minor, 1u);
  RewardInstance reward(item, OptionSet(item, {}));
  const std::vector<dse_answer> answers{answer("a", 1), answer("three", 2), answer("", 3)};
  EXPECT_EQ(reward.score(answers), (std::vector<float>{1, 5, 0}));
}

// A batch has the plugin's size, which the plugin itself checks, and what came later cannot be asked for.
TEST(OlderPlugins, AnAlgorithmOfMinorOneGetsItsBatches) {
  const PluginRegistry registry({}, {{fixture("older_nll"), ""}}, {});
  const Item& item = registry.find(DSE_ALGORITHM, "nll");
  EXPECT_EQ(item.abi_minor, 1u);
  EXPECT_EQ(handed_size<dse_batch>(1), offsetof(dse_batch, rollout_logp));
  EXPECT_EQ(handed_size<dse_batch>(2), offsetof(dse_batch, rollout_logp));
  EXPECT_EQ(handed_size<dse_batch>(3), sizeof(dse_batch));
  AlgorithmInstance algorithm(item, OptionSet(item, {}));
  SampleBatch batch(algorithm.needs(), 1);
  algorithm.prepare(batch.view());
  const LossResult result = loss_of(algorithm, batch);
  double sum = 0;
  for (size_t t = 0; t < batch.mask().size(); ++t)
    sum -= batch.mask()[t] * 1.5 * double(batch.column(DSE_COLUMN_LOGP)[t]);
  EXPECT_NEAR(std::accumulate(result.loss.begin(), result.loss.end(), 0.0), sum, 1e-12 * std::abs(sum));
}

TEST(OlderPlugins, WhatCameLaterIsNotAskedFor) {
  const auto told = [](const char* name) {
    const PluginLibrary library(fixture(name));
    const Item& item = library.items()[0];
    return error_of([&] { AlgorithmInstance(item, OptionSet(item, {})); });
  };
  EXPECT_THAT(told("older_wrong_column"), testing::HasSubstr("columns 129 are not made of DSE_COLUMN_…"));
  EXPECT_THAT(told("wrong_column"), testing::HasSubstr("it reads rollout_logp without a rollout"));
}

// As if dse_answer had been 40 bytes, up to model_score, in the plugin's minor.
TEST(OlderPlugins, ArraysHaveThePluginsStride) {
  const std::vector<dse_answer> answers{answer("a", 1), answer("three", 2), answer("", 3)};
  constexpr uint32_t size = offsetof(dse_answer, model_mean);
  const Handed<dse_answer> handed(answers, size);
  const auto* at = reinterpret_cast<const std::byte*>(handed.data());
  for (const auto& expected : answers) {
    dse_answer read{};
    std::memcpy(&read, at, size);
    EXPECT_EQ(read.struct_size, size);
    EXPECT_STREQ(read.reply, expected.reply);
    EXPECT_EQ(read.model_score, expected.model_score);
    at += size;
  }
  EXPECT_EQ(Handed<dse_answer>(answers, sizeof(dse_answer)).data(), answers.data());
}

}  // namespace
}  // namespace dsengine

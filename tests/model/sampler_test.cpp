// Sampling on hand-worked distributions: frequencies, filters, greedy ties, the log-probability that is told.
#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/philox.h"

namespace dsengine {
namespace {

// log of 0.5, 0.2, 0.15, 0.1, 0.05 plus a constant.
const std::vector<double> kProbabilities{0.15, 0.5, 0.05, 0.2, 0.1};
std::vector<float> logits() {
  std::vector<float> z;
  for (const double p : kProbabilities) z.push_back(float(std::log(p) + 3));
  return z;
}

std::vector<double> frequencies(const SamplingOptions& options, int draws = 40000) {
  const auto z = logits();
  std::vector<double> count(z.size(), 0);
  const Philox random(11, Purpose::sample);
  for (int i = 0; i < draws; ++i) count[size_t(sample(z, options, random.uniform(uint64_t(i))).token)] += 1.0 / draws;
  return count;
}

// 40,000 draws: a frequency's standard deviation is at most 0.0025; five of them.
void expect_frequencies(const SamplingOptions& options, const std::vector<double>& expected) {
  const auto found = frequencies(options);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 0.0125) << "token " << i;
}

TEST(Sampler, FollowsTheDistribution) { expect_frequencies({}, kProbabilities); }

TEST(Sampler, TemperatureSharpens) {
  std::vector<double> expected;
  double sum = 0;
  for (const double p : kProbabilities) expected.push_back(p * p), sum += p * p;
  for (auto& p : expected) p /= sum;
  expect_frequencies({.temperature = 0.5}, expected);
}

TEST(Sampler, FiltersKeepTheLikeliest) {
  expect_frequencies({.top_k = 2}, {0, 0.5 / 0.7, 0, 0.2 / 0.7, 0});
  expect_frequencies({.top_p = 0.6}, {0, 0.5 / 0.7, 0, 0.2 / 0.7, 0});  // 0.5 alone does not reach 0.6
  expect_frequencies({.top_p = 0.5}, {0, 1, 0, 0, 0});
  expect_frequencies({.min_p = 0.25}, {0.15 / 0.85, 0.5 / 0.85, 0, 0.2 / 0.85, 0});  // at least 0.125
  expect_frequencies({.top_k = 3, .top_p = 0.8}, {0, 0.5 / 0.7, 0, 0.2 / 0.7, 0});   // 0.7 of 0.85 reaches 0.8
}

TEST(Sampler, TellsTheLogProbabilityBeforeTheFilters) {
  const auto z = logits();
  EXPECT_NEAR(sample(z, {.top_k = 1}, 0.5).logp, std::log(0.5), 1e-6);
  EXPECT_NEAR(sample(z, {.temperature = 0}, 0.5).logp, std::log(0.5), 1e-6);
  const Sampled cold = sample(z, {.temperature = 0.5}, 0.0);
  double sum = 0;
  for (const double p : kProbabilities) sum += p * p;
  EXPECT_NEAR(cold.logp, std::log(kProbabilities[size_t(cold.token)] * kProbabilities[size_t(cold.token)] / sum), 1e-6);
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  const std::vector<float> z{1, 4, 4, 2};
  EXPECT_EQ(sample(z, {.temperature = 0}, 0.99).token, 1);
}

TEST(Sampler, RepetitionPenaltyActsOnWhatWasSeen) {
  const std::vector<float> z{2, 1.5f, -1};
  const std::vector<int32_t> seen{0, 2, 0};
  EXPECT_EQ(sample(z, {.temperature = 0, .repetition_penalty = 2}, 0, seen).token, 1);  // 2 / 2 < 1.5
  EXPECT_EQ(sample(z, {.temperature = 0, .repetition_penalty = 1.2}, 0, seen).token, 0);
}

TEST(Sampler, DrawsAtTheEdges) {
  const auto z = logits();
  EXPECT_EQ(sample(z, {}, 0.0).token, 0);
  EXPECT_EQ(sample(z, {}, std::nextafter(1.0, 0.0)).token, 4);
  // Logits far apart neither overflow nor give NaN.
  const std::vector<float> far{-1e30f, 80, 1e4f};
  const Sampled best = sample(far, {}, 0.7);
  EXPECT_EQ(best.token, 2);
  EXPECT_EQ(best.logp, 0);
}

}  // namespace
}  // namespace dsengine

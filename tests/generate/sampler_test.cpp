// Sampling on hand-worked distributions: frequencies, filters, greedy ties, the log-probability that is told.
#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
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
  for (int i = 0; i < draws; ++i) count[size_t(sample(z, options, random.uniform(uint64_t(i))))] += 1.0 / draws;
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

// Against a sorted vocabulary, in distributions from flat to steep and with many equals: what filters keep and draw.
TEST(Sampler, FindsWhatASortWouldFind) {
  const Philox random(5, Purpose::sample);
  uint64_t draw = 0;
  for (const double spread : {0.0, 1e-6, 1e-3, 0.3, 4.0, 60.0, 900.0})
    for (const size_t steps : {size_t(0), size_t(7)}) {  // logits on a grid of so many; 0: none
      std::vector<float> z(3000);
      for (auto& x : z) {
        double u = random.uniform(draw++);
        if (steps > 0) u = std::floor(u * double(steps)) / double(steps);
        x = float(spread * u);
      }
      const float top = *std::max_element(z.begin(), z.end());
      std::vector<int32_t> order(z.size());
      std::iota(order.begin(), order.end(), 0);
      const auto weight = [&](int32_t id) { return std::exp(double(z[size_t(id)] - top)); };
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return weight(a) > weight(b); });
      const auto sum_of_first = [&](size_t count) {
        double sum = 0;
        for (size_t i = 0; i < count; ++i) sum += weight(order[i]);
        return sum;
      };
      for (const SamplingOptions& o :
           {SamplingOptions{.top_k = 1}, SamplingOptions{.top_k = 90}, SamplingOptions{.top_k = 2999},
            SamplingOptions{.top_p = 0.3}, SamplingOptions{.top_p = 0.97}, SamplingOptions{.top_k = 500, .top_p = 0.6},
            SamplingOptions{.top_p = 0.9, .min_p = 0.2}}) {
        size_t kept = o.top_k > 0 ? size_t(o.top_k) : z.size();
        if (o.top_p < 1) {
          const double share = o.top_p * sum_of_first(kept);
          size_t count = 0;
          for (double sum = 0; sum < share; ++count) sum += weight(order[count]);
          kept = count;
        }
        if (o.min_p > 0)
          while (weight(order[kept - 1]) < o.min_p) --kept;
        for (const double u : {0.0, 0.01, 0.37, 0.62, 0.998}) {
          double left = u * sum_of_first(kept);
          size_t at = 0;
          while (at + 1 < kept && (left -= weight(order[at])) >= 0) ++at;
          const int32_t token = sample(z, o, u);
          const auto found = size_t(std::find(order.begin(), order.end(), token) - order.begin());
          // Sums are rounded in another order: a draw at the very border of two may fall to either.
          const bool border = u > 0 && std::abs(left) < 1e-9;
          EXPECT_LE(std::max(at, found) - std::min(at, found), border ? 1 : 0)
              << "spread " << spread << " steps " << steps << " top_k " << o.top_k << " top_p " << o.top_p << " u "
              << u;
        }
      }
    }
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  const std::vector<float> z{1, 4, 4, 2};
  EXPECT_EQ(sample(z, {.temperature = 0}, 0.99), 1);
}

TEST(Sampler, RepetitionPenaltyActsOnWhatWasSeen) {
  const std::vector<float> z{2, 1.5f, -1};
  const std::vector<int32_t> seen{0, 2, 0};
  EXPECT_EQ(sample(z, {.temperature = 0, .repetition_penalty = 2}, 0, seen), 1);  // 2 / 2 < 1.5
  EXPECT_EQ(sample(z, {.temperature = 0, .repetition_penalty = 1.2}, 0, seen), 0);
}

TEST(Sampler, DrawsAtTheEdges) {
  const auto z = logits();
  EXPECT_EQ(sample(z, {}, 0.0), 0);
  EXPECT_EQ(sample(z, {}, std::nextafter(1.0, 0.0)), 4);
  // Logits far apart neither overflow nor give NaN.
  const std::vector<float> far{-1e30f, 80, 1e4f};
  EXPECT_EQ(sample(far, {}, 0.7), 2);
}

}  // namespace
}  // namespace dsengine

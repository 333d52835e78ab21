// Factors of answers that another policy gave. Losses and slopes of each form are compared with sums written out in
// float64: losses within 1e-10 relative, slopes, which are float32 and rounded twice, within 1e-6.
#include "rl/importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <dsengine/algorithm.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "ops/built_kernels.h"
#include "plugin/fixtures.h"
#include "plugin/library.h"
#include "rl/objective.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNone = std::numeric_limits<float>::quiet_NaN();
constexpr double kBound = 2;

AlgorithmInstance load(const std::string& name, const OptionValues& options = {}) {
  const Item& item = built_plugins().find(DSE_ALGORITHM, name);
  return {item, OptionSet(item, options)};
}

// Eight answers of 1 to 6 tokens, two to a prompt, some tokens masked out, with weights and columns of their own; a
// token's log-ratio to the policy that answered is `scale` times one of a few from -0.7 to 2.5.
Experience answers(const dse_needs& needs, double scale) {
  std::mt19937 draws(7);
  const auto uniform = [&](double low, double high) { return float(low + (high - low) * double(draws()) / 0x1p32); };
  constexpr double log_ratios[] = {-0.7, 0.1, 0.9, 0, 2.5, 0.4, 0.69};
  Experience e;
  for (int64_t r = 0; r < 8; ++r) {
    std::vector<uint8_t> mask(size_t(1 + r * 5 % 6), 1);
    if (mask.size() > 2) mask[1] = 0;
    if (r == 6) mask.assign(mask.size(), 0);  // no loss token
    e.add_row({std::vector<int32_t>(mask.size() + 1, 5), 1, {}}, r / 2, Finish::eos, 0.5 + double(r / 2), mask);
  }
  dse_needs all = needs;
  all.columns &= ~uint32_t{DSE_COLUMN_ROLLOUT_LOGP};  // set below
  e.allocate(all);
  e.old_logp.clear(), e.logp.clear(), e.advantage.clear();
  for (int64_t t = 0; t < e.token_count(); ++t) {
    e.old_logp.push_back(uniform(-4, -0.5)), e.logp.push_back(e.old_logp.back() + uniform(-0.02, 0.02));
    e.rollout_logp.push_back(float(e.old_logp.back() - scale * log_ratios[t % 7]));
    e.advantage.push_back(uniform(-2, 2));
  }
  if (!e.ref_logp.empty()) e.ref_logp = e.old_logp;
  return e;
}

double cut(double log_ratio, Correction how) {
  const double w = std::exp(log_ratio);
  if (w <= kBound) return w;
  return how == Correction::truncate ? kBound : 0;
}

// Of the loss tokens of rows [first, last).
double sum_of(const Experience& e, size_t first, size_t last, const std::vector<float>& a,
              const std::vector<float>& b) {
  double sum = 0;
  for (auto t = size_t(e.offsets[first]); t < size_t(e.offsets[last]); ++t)
    if (e.mask[t] != 0) sum += double(a[t]) - double(b[t]);
  return sum;
}

struct Expected {
  double loss = 0;
  std::vector<double> d_logp;
};

// All at once, and in the finest micro-batches that there may be.
void expect_loss(AlgorithmInstance& algorithm, const Experience& e, Correction how, const Expected& expected) {
  const double n = normaliser(e, algorithm.needs());
  const int64_t together = rows_together(algorithm.needs());
  for (const int64_t size : {e.row_count(), together}) {
    double loss = 0;
    std::vector<float> d_logp;
    MetricMeans means;
    for (int64_t first = 0; first < e.row_count(); first += size) {
      std::vector<int64_t> rows(static_cast<size_t>(size));
      std::iota(rows.begin(), rows.end(), first);
      Experience micro = e.subset(rows);
      const auto part = weighted_loss(algorithm, micro, n, means, nullptr, {how, kBound});
      loss += part.loss;
      d_logp.insert(d_logp.end(), part.d_logp.begin(), part.d_logp.end());
    }
    EXPECT_NEAR(loss, expected.loss, 1e-10 * std::abs(expected.loss));
    ASSERT_EQ(d_logp.size(), expected.d_logp.size());
    for (size_t t = 0; t < d_logp.size(); ++t)
      EXPECT_NEAR(d_logp[t], expected.d_logp[t], 1e-6 * std::abs(expected.d_logp[t])) << "token " << t;
  }
  // What it would be without.
  MetricMeans means;
  Experience whole = e;
  EXPECT_GT(std::abs(weighted_loss(algorithm, whole, n, means).loss - expected.loss), 0.01 * std::abs(expected.loss));
}

constexpr Correction kCuts[] = {Correction::truncate, Correction::mask};

// GRPO's loss of a token, within its clip and without a reference: -A exp(logp - old_logp).
TEST(Importance, OfATokenInEachNormalisation) {
  for (const std::string type : {"grpo", "dapo", "dr_grpo"})
    for (const Correction how : kCuts) {
      SCOPED_TRACE(type + " " + name_of(how));
      auto grpo = load("grpo", {{"loss_type", {type, ""}}, {"loss_length", {int64_t{16}, ""}}, {"kl_coef", {0.0, ""}}});
      const Experience e = answers(grpo.needs(), 1);
      double rows = 0, tokens = 0, above = 0;
      Expected expected;
      for (size_t r = 0; r < 8; ++r) {
        const double weight = e.weight[r];
        double in_row = 0;
        for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t) in_row += e.mask[t];
        rows += in_row > 0 ? weight : 0, tokens += weight * in_row;
        for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t) {
          const double d = double(e.old_logp[t]) - double(e.rollout_logp[t]);
          const double loss = -double(e.advantage[t]) * std::exp(double(e.logp[t]) - double(e.old_logp[t]));
          const double share = type == "grpo" && in_row > 0 ? weight / in_row : weight;
          expected.d_logp.push_back(e.mask[t] != 0 ? share * cut(d, how) * loss : 0);
          expected.loss += expected.d_logp.back();
          above += e.mask[t] != 0 && std::exp(d) > kBound;
        }
      }
      ASSERT_GT(above, 3);
      const double n = type == "grpo" ? rows : type == "dapo" ? tokens : 16 * rows;
      expected.loss /= n;
      for (auto& slope : expected.d_logp) slope /= n;
      expect_loss(grpo, e, how, expected);
    }
}

// RLOO's loss of a row, within its clip: -A exp(sum of logp - old_logp).
TEST(Importance, OfARowIsOneFactor) {
  for (const Correction how : kCuts) {
    auto rloo = load("rloo");
    const Experience e = answers(rloo.needs(), 0.5);
    double rows = 0;
    int above = 0, below = 0;
    Expected expected;
    for (size_t r = 0; r < 8; ++r) {
      const double d = sum_of(e, r, r + 1, e.old_logp, e.rollout_logp);
      const double loss =
          -double(e.advantage[size_t(e.offsets[r])]) * std::exp(sum_of(e, r, r + 1, e.logp, e.old_logp));
      const double weighed = double(e.weight[r]) * cut(d, how) * loss;
      expected.loss += weighed;
      for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t)
        expected.d_logp.push_back(e.mask[t] != 0 ? weighed : 0);
      if (r != 6) rows += double(e.weight[r]), (std::exp(d) > kBound ? above : below) += 1;
    }
    ASSERT_GT(above, 0);
    ASSERT_GT(below, 0);
    expected.loss /= rows;
    for (auto& slope : expected.d_logp) slope /= rows;
    expect_loss(rloo, e, how, expected);
  }
}

// DPO's loss of a pair: -log sigmoid(0.1 (chosen - rejected)), each the sum of logp - ref_logp.
TEST(Importance, OfAPairIsTheProductOfItsRows) {
  for (const Correction how : kCuts) {
    auto dpo = load("dpo");
    Experience e = answers(dpo.needs(), 0.2);
    for (auto& logp : e.ref_logp) logp -= 0.25f;
    int above = 0, below = 0;
    double pairs = 0;
    Expected expected;
    for (size_t p = 0; p < 4; ++p) {
      const double d = sum_of(e, 2 * p, 2 * p + 2, e.old_logp, e.rollout_logp);
      const double margin =
          0.1 * (sum_of(e, 2 * p, 2 * p + 1, e.logp, e.ref_logp) - sum_of(e, 2 * p + 1, 2 * p + 2, e.logp, e.ref_logp));
      const double weight = double(e.weight[2 * p]) * cut(d, how);
      expected.loss += weight * std::log1p(std::exp(-margin));
      const double slope = -0.1 * weight / (1 + std::exp(margin));
      for (size_t r = 2 * p; r < 2 * p + 2; ++r) {
        for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t)
          expected.d_logp.push_back(e.mask[t] == 0 ? 0 : r % 2 == 0 ? slope : -slope);
        if (r != 6) pairs += double(e.weight[r]) / 2;
      }
      (std::exp(d) > kBound ? above : below) += 1;
    }
    ASSERT_GT(above, 0);
    ASSERT_GT(below, 0);
    expected.loss /= pairs;
    for (auto& slope : expected.d_logp) slope /= pairs;
    expect_loss(dpo, e, how, expected);
  }
}

// What is masked still counts in what the loss is divided by.
TEST(Importance, TheNormaliserCountsWhatIsCut) {
  auto grpo = load("grpo", {{"loss_type", {std::string("dapo"), ""}}, {"kl_coef", {0.0, ""}}});
  Experience e = answers(grpo.needs(), 1);
  MetricMeans means;
  const double n = normaliser(e, grpo.needs());
  for (size_t t = 1; t < e.old_logp.size(); ++t) e.rollout_logp[t] = e.old_logp[t] - 1;  // exp(1) is above the bound
  e.rollout_logp[0] = e.old_logp[0];
  EXPECT_EQ(normaliser(e, grpo.needs()), n);
  const auto one = weighted_loss(grpo, e, n, means, nullptr, {Correction::mask, kBound});
  const double loss = -double(e.advantage[0]) * std::exp(double(e.logp[0]) - double(e.old_logp[0]));
  EXPECT_NEAR(one.loss, double(e.weight[0]) * loss / n, 1e-10 * std::abs(one.loss));
}

// A raw loss corrects itself: each answer's ratio is cut at 2.
TEST(Importance, ARawLossIsLeftToItsAlgorithm) {
  const PluginLibrary library(fixture("raw_corrected"));
  AlgorithmInstance raw(library.items()[0], OptionSet(library.items()[0], {}));
  ASSERT_TRUE(raw.needs().columns & DSE_COLUMN_ROLLOUT_LOGP);
  Experience e = answers(raw.needs(), 0.5);
  MetricMeans means;
  prepare(raw, e, means);
  double loss = 0;
  std::vector<double> slopes;
  for (size_t r = 0; r < 8; ++r) {
    const double factor = std::min(2.0, std::exp(sum_of(e, r, r + 1, e.old_logp, e.rollout_logp)));
    for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t) {
      slopes.push_back(e.mask[t] != 0 ? -factor / 8 : 0);
      loss += slopes.back() * double(e.logp[t]);
    }
  }
  for (const Correction how : {Correction::none, Correction::truncate, Correction::mask}) {
    const auto found = weighted_loss(raw, e, 1, means, nullptr, {how, kBound});
    EXPECT_NEAR(found.loss, loss, 1e-10 * std::abs(loss));
    for (size_t t = 0; t < slopes.size(); ++t) EXPECT_NEAR(found.d_logp[t], slopes[t], 1e-6 * std::abs(slopes[t]));
  }
}

TEST(Importance, WithoutACorrectionEveryFactorIsOne) {
  const auto grpo = load("grpo");
  EXPECT_THAT(importance_factors(answers(grpo.needs(), 1), grpo.needs(), {}), Each(1.0));
  EXPECT_THAT(importance_factors(answers(grpo.needs(), 0), grpo.needs(), {Correction::mask, kBound}), Each(1.0));
}

// One answer of four tokens, the last of which is no target of the loss.
Experience four_tokens(const std::vector<float>& old_logp, const std::vector<float>& rollout_logp) {
  Experience e;
  e.add_row({{5, 6, 7, 8, 9}, 1, rollout_logp}, 3, Finish::eos, 1, std::vector<uint8_t>{1, 1, 1, 0});
  e.old_logp = old_logp, e.rollout_logp = rollout_logp;
  return e;
}

TEST(Importance, WhatIsNotFiniteIsCutOrRefused) {
  dse_needs tokens{}, rows{};
  tokens.form = DSE_FORM_TOKEN, rows.form = DSE_FORM_ROW;
  const ImportanceCorrection truncate{Correction::truncate, 3}, mask{Correction::mask, 3};
  const Experience zeros = four_tokens({-1, -kInfinity, -1, kNone}, {-kInfinity, -1, -1, kNone});
  EXPECT_THAT(importance_factors(zeros, tokens, truncate), ElementsAre(3, 0, 1, 1));
  EXPECT_THAT(importance_factors(zeros, tokens, mask), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(importance_factors(four_tokens({-1, -1, -1, -1}, {-1, -800, -800, -1}), rows, truncate), ElementsAre(3));
  // No probability now and infinitely more before, or the other way round.
  EXPECT_THAT(error_of([&] { importance_factors(zeros, rows, mask); }), HasSubstr("is no number"));
  for (const auto& [old_logp, told] : {std::pair(-1.0f, kNone), {kNone, -1.0f}, {-kInfinity, -kInfinity}})
    EXPECT_THAT(error_of([&] {
                  importance_factors(four_tokens({-1, -1, old_logp, -1}, {-1, -1, told, -1}), tokens, mask);
                }),
                AllOf(HasSubstr("rollout.correction: a ratio of probabilities is no number"),
                      HasSubstr("token 2 of an answer to prompt 3")));
}

TEST(Importance, RatiosAreToldBeforeTheyAreCut) {
  const auto told = [](uint32_t form, Correction how) {
    dse_needs needs{};
    needs.form = form;
    MetricMeans means;
    const float half = float(std::log(0.5)), four = float(std::log(4.0));
    add_importance_ratios(four_tokens({-1, -1, -1, -1}, {-1 - half, -1 - four, -1, -90}), needs, {how, kBound}, means);
    Json line = Json::object();
    means.write_to(line);
    return line;
  };
  EXPECT_EQ(told(DSE_FORM_TOKEN, Correction::none).size(), 0u);
  for (const uint32_t form : {DSE_FORM_TOKEN, DSE_FORM_RAW, DSE_FORM_ROW}) {
    const Json line = told(form, Correction::mask);
    const bool row = form == DSE_FORM_ROW;
    EXPECT_NEAR(line.at("rollout_ratio_mean").get<double>(), row ? 2 : (0.5 + 4 + 1) / 3, 1e-6);
    EXPECT_NEAR(line.at("rollout_ratio_max").get<double>(), row ? 2 : 4, 1e-6);
    // A row of 2 lies on the bound but for float32.
    if (row) continue;
    EXPECT_NEAR(line.at("rollout_ratio_cut").get<double>(), 1.0 / 3, 1e-12);
  }
}

// What a token of <dsengine/algorithm.hpp> shows.
TEST(Importance, ATokenShowsWhatTheRolloutTold) {
  const float column[] = {-1, -2}, mask[] = {1, 1};
  const int32_t id[] = {4, 5};
  dse_batch batch{};
  batch.tokens = 2, batch.mask = mask, batch.token = id, batch.rollout_logp = column;
  EXPECT_EQ(dse::detail::token_at<double>(batch, 1).rollout_logp, -2);
  batch.rollout_logp = nullptr;
  EXPECT_EQ(dse::detail::token_at<double>(batch, 1).rollout_logp, 0);
}

}  // namespace
}  // namespace dsengine

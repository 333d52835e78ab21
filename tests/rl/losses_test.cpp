// The losses of the algorithm plugins against float64 values and hand-derived slopes in tests/golden/losses.json
// (loss_reference.py): the templates themselves in double within 1e-10, and through the shared libraries,
// whose columns are float32, within 1e-6 relative.
#include <gtest/gtest.h>
#include <dsengine/algorithm.hpp>

#include <filesystem>

#include "base/json.h"
#include "plugin/instance.h"
#include "plugin/registry.h"
#include "rl/objective.h"

// The plugins' sources, without their entry points.
#undef DSE_ALGORITHM
#define DSE_ALGORITHM(name, Type) static_assert(sizeof(Type) > 0);
#include "../../plugins/algorithms/ppo.cpp"
#include "../../plugins/algorithms/reward.cpp"
#include "../../plugins/algorithms/sft.cpp"

namespace dsengine {
namespace {

const Json& cases(const char* name) {
  static const Json all = read_json(std::filesystem::path(DSE_TEST_DIR) / "golden/losses.json");
  return all.at(name);
}

// Relative to the larger of 1 and the value: losses near zero are differences of numbers near 1.
void expect_near(double value, double expected, double tolerance, const std::string& what) {
  EXPECT_NEAR(value, expected, tolerance * std::max(1.0, std::abs(expected))) << what;
}

AlgorithmInstance load(const std::string& name, const OptionValues& options = {}) {
  static const PluginRegistry registry({std::filesystem::path(DSE_BINARY_DIR) / "lib/dsengine"});
  const Item& item = registry.find(DSE_ALGORITHM, name);
  return {item, OptionSet(item, options)};
}

// Rows of answers, their columns to be set by hand.
struct HandMade {
  Experience e;
  std::vector<double> loss;
  std::vector<float> d_logp, d_value;

  void row(const std::vector<int32_t>& answer) {
    ExperienceRow r{{0}, 1, {}};
    r.tokens.insert(r.tokens.end(), answer.begin(), answer.end());
    e.add_row(std::move(r), e.row_count() / 2, Finish::record, 1.0, std::vector<uint8_t>(answer.size(), 1));
  }
  void run(AlgorithmInstance& algorithm) {
    dse_batch batch = e.view();
    batch.metric = [](void*, const char*, double, double) {};
    batch.all_reduce_sum = [](void*, double*, int64_t) -> dse_status { return DSE_OK; };
    loss.assign(size_t(unit_count(algorithm.needs(), batch.rows, batch.tokens)), 0);
    d_logp.assign(e.logp.size(), 0), d_value.assign(e.value.size(), 0);
    dse_gradients g{sizeof g,    0,
                    loss.data(), d_logp.empty() ? nullptr : d_logp.data(),
                    nullptr,     d_value.empty() ? nullptr : d_value.data()};
    algorithm.loss(batch, g);
  }
};

Ppo ppo_with(double clip_ratio, double clip_value) {
  dse::Options defaults;
  Ppo ppo(defaults);
  ppo.clip_ratio = clip_ratio, ppo.clip_value = clip_value;
  return ppo;
}

TEST(PpoLoss, TemplateInDouble) {
  using D = dse::Dual<3>;
  ASSERT_GE(cases("ppo_token").size(), 40u);
  for (const auto& c : cases("ppo_token")) {
    const auto x = [&](const char* name) { return c.at(name).get<double>(); };
    const Ppo ppo = ppo_with(x("clip_ratio"), x("clip_value"));
    const dse::Token<D> t{D::input(x("logp"), 0),
                          D(0.0),
                          D::input(x("value"), 2),
                          x("old_logp"),
                          x("old_value"),
                          0,
                          x("advantage"),
                          x("target"),
                          0,
                          {}};
    const D loss = ppo.token_loss(t);
    expect_near(ppo.policy_loss(t).value, x("policy_loss"), 1e-10, "policy_loss of " + c.dump());
    expect_near(ppo.value_loss(t).value, x("value_loss"), 1e-10, "value_loss of " + c.dump());
    expect_near(loss.value, x("loss"), 1e-10, "loss of " + c.dump());
    expect_near(loss.slope[0], x("d_logp"), 1e-10, "d_logp of " + c.dump());
    expect_near(loss.slope[2], x("d_value"), 1e-10, "d_value of " + c.dump());
  }
}

TEST(PpoLoss, ThroughTheLibrary) {
  for (const auto& c : cases("ppo_token")) {
    const auto x = [&](const char* name) { return c.at(name).get<float>(); };
    auto ppo = load("ppo", {{"clip_ratio", {c.at("clip_ratio").get<double>(), ""}},
                            {"clip_value", {c.at("clip_value").get<double>(), ""}}});
    HandMade m;
    m.row({5});
    m.e.allocate(ppo.needs());
    m.e.logp = {x("logp")}, m.e.value = {x("value")}, m.e.old_logp = {x("old_logp")};
    m.e.old_value = {x("old_value")}, m.e.advantage = {x("advantage")}, m.e.target = {x("target")};
    m.run(ppo);
    expect_near(m.loss[0], c.at("loss"), 1e-6, c.dump());
    expect_near(m.d_logp[0], c.at("d_logp"), 1e-6, c.dump());
    expect_near(m.d_value[0], c.at("d_value"), 1e-6, c.dump());
  }
}

TEST(SftLoss, ThroughTheLibrary) {
  auto sft = load("sft");
  for (const auto& c : cases("sft_token")) {
    HandMade m;
    m.row({5});
    m.e.allocate(sft.needs());
    m.e.logp = {c.at("logp").get<float>()};
    m.run(sft);
    expect_near(m.loss[0], c.at("loss"), 1e-6, c.dump());
    expect_near(m.d_logp[0], c.at("d_logp"), 1e-6, c.dump());
  }
}

TEST(RewardLoss, EndFormThroughTheLibrary) {
  auto reward = load("reward");
  for (const auto& c : cases("pair_end")) {
    HandMade m;
    m.row({5, 6}), m.row({7, 8, 9});
    m.e.allocate(reward.needs());
    m.e.value = {0.25f, c.at("chosen").get<float>(), -3, 4, c.at("rejected").get<float>()};
    m.run(reward);
    expect_near(m.loss[0], c.at("loss"), 1e-6, c.dump());
    const std::vector<double> slopes{0, c.at("d_chosen"), 0, 0, c.at("d_rejected")};
    for (size_t t = 0; t < slopes.size(); ++t) expect_near(m.d_value[t], slopes[t], 1e-6, c.dump());
  }
}

TEST(RewardLoss, TokenFormThroughTheLibrary) {
  auto reward = load("reward", {{"form", {std::string("token"), ""}}});
  for (const auto& c : cases("pair_token")) {
    HandMade m;
    m.row(c.at("chosen_ids")), m.row(c.at("rejected_ids"));
    m.e.allocate(reward.needs());
    m.e.value = c.at("chosen_values").get<std::vector<float>>();
    for (const auto& v : c.at("rejected_values")) m.e.value.push_back(v);
    m.run(reward);
    expect_near(m.loss[0], c.at("loss"), 1e-6, c.dump());
    auto slopes = c.at("d_chosen").get<std::vector<double>>();
    for (const auto& d : c.at("d_rejected")) slopes.push_back(d);
    for (size_t t = 0; t < slopes.size(); ++t) expect_near(m.d_value[t], slopes[t], 1e-6, c.dump());
  }
}

// The reward templates in double: rows over float32 columns that are exact for these inputs.
TEST(RewardLoss, EndFormTemplateInDouble) {
  using D = dse::Dual<8>;
  dse::Options defaults;
  const RewardModel reward(defaults);
  for (const auto& c : cases("pair_end")) {
    const float values[] = {c.at("chosen").get<float>(), c.at("rejected").get<float>()}, mask[] = {1, 1};
    dse_batch b{};
    b.value = values, b.mask = mask;
    const dse::Pair<D> pair{{0, 1, 0, 1, 0, &b, 0}, {1, 2, 0, 1, 0, &b, 0}};
    const D loss = reward.pair_loss(pair);
    expect_near(loss.value, c.at("loss"), 1e-10, c.dump());
    expect_near(loss.slope[1], c.at("d_chosen"), 1e-10, c.dump());
    expect_near(loss.slope[3], c.at("d_rejected"), 1e-10, c.dump());
  }
}

OptionValue option_of(const Json& value) {
  if (value.is_boolean()) return {value.get<bool>(), ""};
  if (value.is_number_integer()) return {value.get<int64_t>(), ""};
  if (value.is_number()) return {value.get<double>(), ""};
  return {value.get<std::string>(), ""};
}

// Whole minibatches of the policy algorithms: advantages as prepare makes them, the loss with its normalisation, and
// its gradient by every token's log-probability, all in one micro-batch and row by row (or pair by pair).
TEST(PolicyAlgorithms, AreTheirPapersObjectives) {
  const Json all = read_json(std::filesystem::path(DSE_TEST_DIR) / "golden/algorithms.json");
  ASSERT_EQ(all.size(), 17u);
  for (const auto& c : all) {
    OptionValues options;
    for (const auto& [name, value] : c.at("options").items()) options[name] = option_of(value);
    auto algorithm = load(c.at("algorithm"), options);
    const std::string what = c.at("algorithm").get<std::string>() + " " + c.at("options").dump();
    Experience e;
    for (const auto& r : c.at("rows")) {
      const auto mask = r.at("mask").get<std::vector<float>>();
      ExperienceRow row{std::vector<int32_t>(mask.size() + 1, 5), 1, {}};
      e.add_row(std::move(row), r.at("prompt"), Finish::eos, 1.0, std::vector<uint8_t>(mask.begin(), mask.end()));
      e.score.back() = r.at("score");
    }
    e.allocate(algorithm.needs());
    const auto fill = [&](const char* name, std::vector<float>& column) {
      if (column.empty()) return;
      column.clear();
      for (const auto& r : c.at("rows"))
        for (const float x : r.at(name)) column.push_back(x);
    };
    fill("logp", e.logp), fill("old_logp", e.old_logp), fill("ref_logp", e.ref_logp);
    fill("value", e.value), fill("old_value", e.old_value), fill("entropy", e.entropy);
    MetricMeans means;
    prepare(algorithm, e, means);
    const auto joined = [&](const char* name) {
      std::vector<double> values;
      for (const auto& row : c.value(name, Json::array()))
        for (const double x : row) values.push_back(x);
      return values;
    };
    const auto advantage = joined("advantage");
    for (size_t t = 0; t < advantage.size(); ++t) expect_near(e.advantage[t], advantage[t], 1e-6, what);

    const double n = normaliser(e, algorithm.needs());
    const int64_t unit = algorithm.needs().form == DSE_FORM_PAIR ? 2 : 1;
    for (const int64_t size : {e.row_count(), unit}) {
      double loss = 0;
      std::vector<float> d_logp, d_entropy, d_value;
      for (int64_t first = 0; first < e.row_count(); first += size) {
        std::vector<int64_t> rows;
        for (int64_t r = first; r < first + size; ++r) rows.push_back(r);
        Experience micro = e.subset(rows);
        const WeightedLoss part = weighted_loss(algorithm, micro, n, means);
        loss += part.loss;
        d_logp.insert(d_logp.end(), part.d_logp.begin(), part.d_logp.end());
        d_entropy.insert(d_entropy.end(), part.d_entropy.begin(), part.d_entropy.end());
        d_value.insert(d_value.end(), part.d_value.begin(), part.d_value.end());
      }
      // Slopes of a mean over some 60 tokens: float32 columns and rounding of slopes of order 0.05.
      const auto expect_slopes = [&](const std::vector<float>& found, const char* name) {
        const auto expected = joined(name);
        for (size_t t = 0; t < std::min(found.size(), expected.size()); ++t)
          EXPECT_NEAR(found[t], expected[t], 2e-6) << what << ", " << name << " of token " << t;
      };
      EXPECT_EQ(d_logp.size(), joined("d_logp").size());
      expect_slopes(d_logp, "d_logp"), expect_slopes(d_entropy, "d_entropy"), expect_slopes(d_value, "d_value");
      expect_near(loss, c.at("loss"), 1e-6, what);
    }
  }
}

// Ziegler et al. 2019, section 2.2: the error is clipped at 0.2, and the coefficient grows by error times answers over
// the horizon; what was reached survives save and load.
TEST(PpoLoss, AdaptsItsKlCoefficient) {
  const OptionValues options{{"kl_target", {2.0, ""}}, {"kl_horizon", {100.0, ""}}, {"kl_coef", {0.1, ""}}};
  auto ppo = load("ppo", options);
  HandMade m;
  m.row({5, 6}), m.row({7});
  m.e.allocate(ppo.needs());
  const auto coefficient = [&](AlgorithmInstance& algorithm, float kl) {
    m.e.old_logp = {-1, -1, -1}, m.e.ref_logp = {-1 - kl, -1, -1 - kl};
    MetricMeans means;
    prepare(algorithm, m.e, means);
    return means.mean("kl_coef");
  };
  EXPECT_DOUBLE_EQ(coefficient(ppo, 5), 0.1);                           // before it is adapted
  EXPECT_DOUBLE_EQ(coefficient(ppo, 2.2f), 0.1 * (1 + 0.2 * 2 / 100));  // far above the target
  const double third = coefficient(ppo, 0);
  EXPECT_NEAR(third, 0.1 * (1 + 0.2 * 2 / 100) * (1 + 0.1 * 2 / 100), 1e-9);  // a tenth above it
  auto again = load("ppo", options);
  again.load(ppo.save());
  EXPECT_DOUBLE_EQ(coefficient(again, 1), third * (1 - 0.2 * 2 / 100));
}

}  // namespace
}  // namespace dsengine

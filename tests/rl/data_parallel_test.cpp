// A training step on 2 and 3 ranks (threads), with the rows dealt, against one rank on the same rows.
//
// Tolerances: gradients within 1e-5 of each unit's gradient norm and the change of the weights within 1e-3 of its norm,
// at a learning rate of 1e-3 that moves them: what float32 loses by another order of sums, and Adam's first step is
// nearly the gradient's sign. Loss and metrics to 1e-6. Ranks beside each other have the same bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../model/golden_models.h"
#include "base/check.h"
#include "comm/local.h"
#include "comm/threads.h"
#include "plugin/fixtures.h"
#include "plugin/library.h"
#include "rl/learner.h"

namespace dsengine {
namespace {

constexpr double kGradientTolerance = 1e-5, kChangeTolerance = 1e-3, kMetricTolerance = 1e-6;
constexpr double kRate = 1e-3;

struct Case {
  std::string name, algorithm;
  std::vector<int64_t> answers;  // tokens of each row's answer
  std::vector<int64_t> prompts;  // each row's prompt; empty: its own
  Batching batching{.mini_batch_size = 16, .micro_batch_size = 2};
  bool recompute = false;
  double mixture = 0;
  OptionValues options{};
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

// What a rank ends with, by role and unit.
struct Outcome {
  std::map<std::string, at::Tensor> gradient, change;
  std::vector<float> columns;
  Json metrics;
};

Experience rows_of(const Case& c, const dse_needs& needs) {
  Experience e;
  std::vector<int64_t> lengths;
  for (size_t r = 0; r < c.answers.size(); ++r) lengths.push_back(c.answers[r] + 1 + int64_t(r * 5 % 7));
  const auto sequences = random_sequences(lengths, 60, 7);
  const int64_t together = rows_together(needs);
  for (size_t r = 0; r < c.answers.size(); ++r) {
    ExperienceRow row{sequences[r], lengths[r] - c.answers[r], {}};
    // Ratios on both sides of a bound of 2.
    for (int64_t t = 0; c.batching.correction.how != Correction::none && t < row.answer_size(); ++t)
      row.rollout_logp.push_back(float(-4 + 2 * std::sin(double(5 * int64_t(r) + t))));
    std::vector<uint8_t> mask(size_t(c.answers[r]), 1);
    if (r % 3 == 1 && mask.size() > 2) mask[1] = 0;
    const int64_t id = c.prompts.empty() ? int64_t(r) / together : c.prompts[r];
    e.add_row(std::move(row), id, Finish::eos, id % 2 ? 1.0 : 0.5, mask);
    e.score.back() = float(std::sin(double(3 * r + 1))) * 2;
  }
  e.allocate(needs);
  return e;
}

const Item& item_of(const std::string& algorithm) {
  static const PluginLibrary raw(fixture("raw_contrast")), sums(fixture("sums"));
  if (algorithm == "raw_contrast") return raw.items()[0];
  return algorithm == "sums" ? sums.items()[0] : built_plugins().find(DSE_ALGORITHM, algorithm);
}

// Models, kernels, algorithm and learner of one rank.
struct Rank {
  Communicator& all;
  Kernels kernels{built_plugins(), Device::host()};
  AlgorithmInstance algorithm;
  Roles roles;
  Phases phases;
  Learner learner;
  Experience e;
  MetricMeans means;
  std::map<std::string, at::Tensor> before;

  Rank(const Case& c, Communicator& ranks, int64_t zero_stage = 0)
      : all(ranks),
        algorithm(item_of(c.algorithm), OptionSet(item_of(c.algorithm), c.options)),
        learner(algorithm, roles, c.batching, phases, ranks),
        e(rows_of(c, algorithm.needs())) {
    learner.allocate(e);
    const auto& needs = algorithm.needs();
    const auto load = [&](std::shared_ptr<Role>& role, uint32_t bit, const char* from, ModelKind kind) {
      if (!(needs.roles & bit)) return;
      role = std::make_shared<Role>(Role{golden_model(from, kind, at::kFloat, kernels), nullptr, {}});
      role->settings.learning_rate = kRate, role->settings.schedule = Schedule::constant;
      role->model.set_recompute(c.recompute);
      if (needs.trained & bit) role->enable_training(0, {&ranks, zero_stage});
    };
    load(roles.actor, DSE_ACTOR, "llama_gqa", ModelKind::language);
    load(roles.reference, DSE_REFERENCE, "ppo_step/reference", ModelKind::language);
    load(roles.critic, DSE_CRITIC, "llama_reward", ModelKind::value);
    if (needs.trained & DSE_REWARD) load(roles.reward, DSE_REWARD, "llama_reward", ModelKind::value);
    if (c.mixture > 0)
      learner.mix({c.mixture, [texts = rows_of({"", "", {5, 3, 8}, {}}, needs)](int64_t) { return texts; }});
    each([&](const std::string& name, const ParamStorage& unit) { before[name] = unit.flat().clone(); });
  }

  template <class Use>
  void each(const Use& use) const {
    for (const auto& [name, role] :
         {std::pair{"actor ", &roles.actor}, {"critic ", &roles.critic}, {"reward ", &roles.reward}})
      if (*role && (*role)->optimizer)
        for (const auto* unit : (*role)->optimizer->units()) use(name + unit->name(), *unit);
  }

  Outcome step() {
    learner.fill_columns(e, means, true);
    prepare(algorithm, e, means);
    learner.update(
        e, 1, 2, [](const OptimizerConfig& o) { return o.learning_rate; }, means);
    Outcome outcome;
    each([&](const std::string& name, const ParamStorage& unit) {
      at::Tensor gradient = unit.grad().clone();
      if (unit.grad_cut()) {  // of which each rank has a part
        gradient = at::zeros({unit.trained_numel()}, gradient.options());
        gradient.narrow(0, unit.own_begin(), unit.grad().numel()).copy_(unit.grad());
        all.gather_parts(gradient, unit.cuts());
      }
      outcome.gradient[name] = gradient;
      outcome.change[name] = unit.flat() - before.at(name);
    });
    for (const auto* column : {&e.old_logp, &e.old_value, &e.ref_logp, &e.advantage, &e.target})
      outcome.columns.insert(outcome.columns.end(), column->begin(), column->end());
    means.write_to(outcome.metrics);
    return outcome;
  }
};

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>() / b.to(at::kDouble).norm().item<double>();
}

void expect_near(const std::map<std::string, at::Tensor>& got, const std::map<std::string, at::Tensor>& expected,
                 double tolerance, const char* what) {
  double worst = 0;
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_GT(tensor.norm().item<double>(), 0) << what << " of " << name << ": nothing to compare with";
    const double d = distance(got.at(name), tensor);
    EXPECT_LE(d, tolerance) << what << " of " << name;
    worst = std::max(worst, d);
  }
  testing::Test::RecordProperty(what, fmt::format("{:.2e}", worst));
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
  for (const auto& [name, tensor] : a.change) EXPECT_TRUE(same_bits(tensor, b.change.at(name))) << name;
  for (const auto& [name, tensor] : a.gradient) EXPECT_TRUE(same_bits(tensor, b.gradient.at(name))) << name;
  EXPECT_EQ(a.columns, b.columns);
  EXPECT_EQ(a.metrics, b.metrics);
}

std::vector<Outcome> on_ranks(const Case& c, int64_t size, int64_t zero_stage = 0) {
  std::vector<Outcome> outcomes(static_cast<size_t>(size));
  run_ranks(size, [&](Communicator& ranks) { outcomes[size_t(ranks.rank())] = Rank(c, ranks, zero_stage).step(); });
  return outcomes;
}

Outcome alone(const Case& c) {
  LocalCommunicator ranks;
  return Rank(c, ranks).step();
}

class DataParallel : public testing::TestWithParam<Case> {};

TEST_P(DataParallel, StepIsTheSingleRanks) {
  const Case& c = GetParam();
  const Outcome one = alone(c);
  for (const auto& [size, zero_stage] : {std::pair{2, 0}, {3, 0}, {2, 1}, {3, 2}}) {
    SCOPED_TRACE(fmt::format("{} ranks, zero_stage {}", size, zero_stage));
    const auto outcomes = on_ranks(c, size, zero_stage);
    for (const auto& other : outcomes) expect_same_bits(other, outcomes[0]);
    expect_near(outcomes[0].gradient, one.gradient, kGradientTolerance, "gradient");
    expect_near(outcomes[0].change, one.change, kChangeTolerance, "change");
    // Rows have the same bits whatever stands beside them, and prepare has all of them.
    EXPECT_EQ(outcomes[0].columns, one.columns);
    for (const auto& [name, value] : one.metrics.items()) {
      ASSERT_TRUE(outcomes[0].metrics.contains(name)) << name;
      const double expected = value, got = outcomes[0].metrics.at(name);
      EXPECT_NEAR(got, expected, kMetricTolerance * std::abs(expected) + 1e-9) << name;
    }
    EXPECT_EQ(outcomes[0].metrics.size(), one.metrics.size());
  }
}

// Moments in parts, and weights that come from their owners, are the same numbers.
TEST(DataParallelRun, PartsOfMomentsChangeNoBit) {
  const Case c{"", "ppo", {6, 1, 12, 3, 9, 12, 2, 7}, {}, {.mini_batch_size = 4, .micro_batch_size = 2, .epochs = 2}};
  const auto whole = on_ranks(c, 3), parts = on_ranks(c, 3, 1);
  for (size_t r = 0; r < whole.size(); ++r) expect_same_bits(parts[r], whole[r]);
}

const Batching kSingles{.mini_batch_size = 16, .micro_batch_size = 1};

INSTANTIATE_TEST_SUITE_P(
    Steps, DataParallel,
    testing::Values(Case{"sft", "sft", {7, 1, 14, 4, 9, 2, 5}, {}},
                    Case{"sft_fewer_rows_than_ranks", "sft", {6, 9}, {}},
                    Case{"sft_one_row", "sft", {6}, {}, kSingles, /*recompute=*/true},
                    Case{"sft_uneven_micro_batches", "sft", {1, 2, 40, 3, 1, 2, 1}, {}, kSingles},
                    Case{"reward_pairs", "reward", {8, 11, 5, 5, 1, 13, 6, 2, 4, 4}, {}},
                    Case{"dpo_one_pair", "dpo", {8, 11}, {}, {}, /*recompute=*/true},
                    Case{"dpo_pairs", "dpo", {8, 11, 5, 5, 1, 13}, {}}, Case{"ppo", "ppo", {6, 1, 12, 3, 9, 12}, {}},
                    Case{"ppo_recomputed_uneven", "ppo", {6, 1, 30, 3, 2}, {}, kSingles, /*recompute=*/true},
                    Case{"ppo_one_row", "ppo", {6}, {}},
                    Case{"ppo_entropy_and_texts",
                         "ppo",
                         {6, 1, 12, 3, 9},
                         {},
                         kSingles,
                         false,
                         /*mixture=*/0.5,
                         {{"entropy_coef", {0.01, ""}}, {"kl_target", {0.1, ""}}}},
                    Case{"ppo_corrected",
                         "ppo",
                         {6, 1, 12, 3, 9, 12},
                         {},
                         {.mini_batch_size = 16, .micro_batch_size = 2, .correction = {Correction::truncate, 2}}},
                    Case{"rloo_corrected",
                         "rloo",
                         {3, 1, 2, 3, 1, 2},
                         {0, 0, 0, 1, 1, 1},
                         {.mini_batch_size = 16, .micro_batch_size = 2, .correction = {Correction::mask, 2}}},
                    Case{"grpo_groups", "grpo", {6, 1, 12, 3, 9, 12, 4, 4, 2}, {0, 0, 0, 0, 1, 1, 2, 2, 2}},
                    Case{"grpo_one_group", "grpo", {6, 1, 12, 3}, {5, 5, 5, 5}, kSingles},
                    Case{"raw", "raw_contrast", {7, 1, 14, 4, 9}, {}}, Case{"raw_one_row", "raw_contrast", {7}, {}}),
    [](const auto& info) { return info.param.name; });

// Several updates: each starts from weights that float32 has moved apart a little.
TEST(DataParallelRun, EpochsOfMinibatchesEndWithTheSingleRanksWeights) {
  const Case c{"", "ppo", {6, 1, 12, 3, 9, 12, 2, 7}, {}, {.mini_batch_size = 4, .micro_batch_size = 2, .epochs = 2}};
  const Outcome one = alone(c);
  const auto outcomes = on_ranks(c, 3);
  for (const auto& other : outcomes) expect_same_bits(other, outcomes[0]);
  expect_near(outcomes[0].change, one.change, kChangeTolerance, "change");
}

TEST(DataParallelRun, TheEpochsEndOnAllRanksAtOnce) {
  const Case c{"",
               "ppo",
               {6, 1, 12, 3, 9, 12},
               {},
               {.mini_batch_size = 3, .micro_batch_size = 2, .epochs = 3, .target_kl = 1e-4}};
  const Outcome one = alone(c);
  const double skipped = one.metrics.at("minibatches_skipped");
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 6);
  for (const auto& outcome : on_ranks(c, 2)) EXPECT_EQ(outcome.metrics.at("minibatches_skipped"), skipped);
}

TEST(DataParallelRun, EvaluationIsTheSingleRanks) {
  const Case c{"", "reward", {8, 11, 5, 5, 1, 13}, {}};
  const auto loss = [&](Communicator& ranks) {
    Rank rank(c, ranks);
    MetricMeans means;
    rank.learner.evaluate(rank.e, means);
    return std::pair{means.mean("loss"), means.mean("margin")};
  };
  LocalCommunicator ranks;
  const auto one = loss(ranks);
  run_ranks(3, [&](Communicator& c3) {
    const auto mine = loss(c3);
    EXPECT_NEAR(mine.first, one.first, 1e-6 * std::abs(one.first));
    EXPECT_NEAR(mine.second, one.second, 1e-6 * std::abs(one.second));
  });
}

// A sum that an algorithm asks for within its loss, of the ranks' micro-batches at that time.
TEST(DataParallelRun, AnAlgorithmsSumsAreOfAllRanks) {
  const Case c{"", "sums", {7, 1, 14, 4, 9, 2, 5}, {}, {.mini_batch_size = 8, .micro_batch_size = 8}};
  const Outcome one = alone(c);
  EXPECT_EQ(one.metrics.at("rows_at_once"), 7);
  const auto outcomes = on_ranks(c, 3);
  for (const auto& outcome : outcomes) EXPECT_EQ(outcome.metrics.at("rows_at_once"), 7);
  expect_near(outcomes[0].gradient, one.gradient, kGradientTolerance, "gradient");

  ThreadGroup group(2);
  group.leave(1, "no paper");
  AlgorithmInstance algorithm(item_of("sums"), OptionSet(item_of("sums"), {}));
  Experience e = rows_of(c, algorithm.needs());
  MetricMeans means;
  EXPECT_THROW(weighted_loss(algorithm, e, 1, means, &group.rank(0)), RankLost) << "not what the plugin says of it";
  EXPECT_NO_THROW(weighted_loss(algorithm, e, 1, means));
}

// What goes wrong on one rank ends the step on all, before any weight is changed.
class OneRanksError : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Algorithms, OneRanksError, testing::Values("sft", "raw_contrast"));

TEST_P(OneRanksError, IsAnErrorOfAll) {
  std::atomic<int> lost{0}, own{0};
  run_ranks(3, [&](Communicator& ranks) {
    const Case c{"", GetParam(), {7, 1, 14, 4, 9, 2, 5}, {}};
    Rank rank(c, ranks);
    // A token that its model has not, in a row of rank 1.
    const auto dealing =
        deal(row_units(rank.e, std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}, rank.algorithm.needs()), 3, 2);
    auto& row = rank.e.rows[size_t(dealing.rows[1][0])];
    auto wrong = *row;
    wrong.tokens[0] = 1000;
    row = std::make_shared<const ExperienceRow>(std::move(wrong));
    try {
      rank.step();
    } catch (const UserError&) {
      EXPECT_EQ(ranks.rank(), 1);
      ++own;
    } catch (const RankLost& e) {
      EXPECT_EQ(e.rank(), 1);
      ++lost;
    }
    rank.each([&](const std::string& name, const ParamStorage& unit) {
      EXPECT_TRUE(same_bits(unit.flat(), rank.before.at(name)));
    });
    EXPECT_FALSE(ranks.agree(false)) << "they are all there still";
  });
  EXPECT_EQ(own, 1);
  EXPECT_EQ(lost, 2);
}

TEST(DataParallelRun, ALossThatIsNotFiniteOnOneRankEndsAll) {
  std::atomic<int> lost{0}, own{0};
  run_ranks(3, [&](Communicator& ranks) {
    Rank rank({"", "sft", {7, 1, 14, 4, 9, 2, 5}, {}}, ranks);
    if (ranks.rank() == 1) rank.roles.actor->model.units()[0]->flat().fill_(NAN);
    try {
      rank.step();
    } catch (const UserError& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr("not finite"));
      ++own;
    } catch (const RankLost& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr("rank 1: the loss is not finite"));
      ++lost;
    }
  });
  EXPECT_EQ(own, 1);
  EXPECT_EQ(lost, 2);
}

}  // namespace
}  // namespace dsengine

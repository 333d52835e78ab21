// A role's update: the moving average, the clip, an adapter and its base, against recurrences in float64; which roles
// there are and where what they leave is put, by hand.
#include "rl/role.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "plugin/fixtures.h"
#include "rl/trained_roles.h"

namespace dsengine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

LocalCommunicator alone;

// Half a unit in the last place of float32 weights below 4, at each of three steps.
constexpr double kThreeRoundings = 3 * 2.4e-7;

TEST(RoleStep, TheAverageFollowsItsRecurrence) {
  auto settings = constant_settings(2e-2);
  settings.ema_decay = 0.9;
  Role role = trained_role("llama_gqa", ModelKind::language, settings);
  std::vector<at::Tensor> expected;
  for (const auto& value : trained_values(role)) expected.push_back(value.to(at::kDouble));
  for (int step = 0; step < 3; ++step) {
    put_gradients(role, step);
    role.step(2e-2, alone);
    const auto now = trained_values(role);
    for (size_t u = 0; u < now.size(); ++u) expected[u] = 0.9 * expected[u] + 0.1 * now[u].to(at::kDouble);
  }
  const Model averaged = role.averaged();
  const auto units = averaged.units();
  ASSERT_EQ(units.size(), expected.size());
  const auto now = trained_values(role);
  for (size_t u = 0; u < expected.size(); ++u) {
    EXPECT_LE(greatest(role.average[u] - expected[u]), kThreeRoundings) << u;
    const int64_t begin = role.optimizer->units()[u]->trained_begin(), size = role.average[u].numel();
    EXPECT_TRUE(same_bits(units[u]->flat().narrow(0, begin, size), role.average[u])) << u;
    EXPECT_GT(greatest(now[u] - expected[u]), 1e-2) << "the average stays behind";
  }
}

TEST(RoleStep, TheAverageIsAnotherInWhatIsTrainedAlone) {
  auto settings = constant_settings(1e-2);
  settings.ema_decay = 0.5, settings.weight_decay = 0.1;
  Role role = trained_role("llama_gqa", ModelKind::language, settings,
                           {.rank = 2, .targets = {"q", "down"}, .also_train = {"norms"}});
  put_gradients(role, 1);
  role.step(1e-2, alone);
  const Model averaged = role.averaged();
  const auto own = role.model.units(), others = averaged.units();
  ASSERT_EQ(own.size(), others.size());
  size_t trained = 0, left = 0;
  for (size_t u = 0; u < own.size(); ++u)
    for (size_t b = 0; b < own[u]->blocks().size(); ++b) {
      const bool is_trained = own[u]->trained() && own[u]->trained(b);
      EXPECT_EQ(same_bits(own[u]->block(b), others[u]->block(b)), !is_trained) << own[u]->name() << " " << b;
      ++(is_trained ? trained : left);
    }
  EXPECT_GT(trained, 0u);
  EXPECT_GT(left, 0u);
}

TEST(RoleStep, WithoutADecayThereIsNoAverage) {
  const Role role = trained_role("llama_gqa", ModelKind::language, constant_settings(1e-2));
  EXPECT_TRUE(role.average.empty());
}

TEST(RoleStep, ARateOfZeroMovesNoBit) {
  auto settings = constant_settings(0);
  settings.weight_decay = 0.1, settings.ema_decay = 0.9;
  Role role = trained_role("llama_gqa", ModelKind::language, settings);
  const auto before = trained_values(role);
  for (int step = 0; step < 2; ++step) {
    put_gradients(role, step);
    role.step(0, alone);
  }
  const auto after = trained_values(role);
  for (size_t u = 0; u < before.size(); ++u) {
    EXPECT_TRUE(same_bits(after[u], before[u])) << u;
    EXPECT_TRUE(same_bits(role.average[u], before[u])) << u;
    EXPECT_GT(greatest(role.optimizer->moments()[u].mean()), 0) << "the step was made";
  }
  EXPECT_EQ(role.optimizer->steps(), 2);
}

// The first moment after one step is (1 - beta1) times the clipped gradient. 1e-6: a float32 product's rounding, and
// the norm's own.
TEST(RoleStep, TheNormIsOfAllGradientsBeforeTheClip) {
  for (const bool clipped : {true, false}) {
    auto settings = constant_settings(1e-3);
    Role role = trained_role("llama_gqa", ModelKind::language, settings);
    put_gradients(role, 1);
    double squares = 0;
    std::vector<at::Tensor> gradients;
    for (const auto* unit : role.optimizer->units()) {
      gradients.push_back(unit->grad().to(at::kDouble));
      const double own = gradients.back().square().sum().item<double>();
      EXPECT_GT(own, 1e-4) << "a norm without " << unit->name() << " would not be told from the whole";
      squares += own;
    }
    const double norm = std::sqrt(squares);
    role.settings.grad_clip = clipped ? norm / 4 : norm * 4;
    role.optimizer = std::make_unique<AdamW>(role.model.kernels(), role.optimizer->units(),
                                             AdamWSettings{.grad_clip = role.settings.grad_clip});
    EXPECT_NEAR(role.step(1e-3, alone), norm, 1e-6 * norm);
    const double scale = 0.1 * (clipped ? 0.25 * norm / (norm + 1e-6) : 1);
    for (size_t u = 0; u < gradients.size(); ++u) {
      const at::Tensor expected = gradients[u] * scale;
      EXPECT_LE(greatest(role.optimizer->moments()[u].mean() - expected), 1e-6 * greatest(expected)) << u;
    }
  }
}

TEST(AdaptedRole, TheBaseMovesByNoBit) {
  auto settings = constant_settings(1e-2);
  settings.weight_decay = 0.1;
  Role role =
      trained_role("llama_gqa", ModelKind::language, settings, {.rank = 4, .targets = {"all"}, .also_train = {}});
  const Model base = golden_model("llama_gqa");
  const auto before = trained_values(role);
  for (int step = 0; step < 3; ++step) {
    put_gradients(role, step);
    role.step(1e-2, alone);
  }
  const auto now = role.model.tensors(), was = base.tensors();
  ASSERT_EQ(now.size(), was.size());
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(same_bits(now[i].tensor, was[i].tensor)) << was[i].spec->tensor;
  const auto after = trained_values(role);
  for (size_t u = 0; u < after.size(); ++u) EXPECT_GT(greatest(after[u] - before[u]), 1e-2) << u;
}

// Adam's first step is the rate itself wherever there is a gradient: |g| / (|g| + epsilon), which is 1 to 1e-5 for the
// gradient of 1e-3 and epsilon 1e-8; weights below 2 round it by 1.2e-7.
TEST(AdaptedRole, ThePairsHaveARateOfTheirOwn) {
  Role role = trained_role("llama_gqa", ModelKind::language, constant_settings(1e-2),
                           {.rank = 4, .targets = {"q"}, .also_train = {"norms"}, .learning_rate = 3e-3});
  for (const auto* unit : role.optimizer->units())
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      if (at::Tensor grad = unit->grad_block(b); grad.defined()) grad.fill_(1e-3);
  const auto before = trained_values(role);
  role.step(5e-3, alone);  // as a schedule has it half-way down: both follow it
  const auto after = trained_values(role);
  const auto pairs = std::as_const(*role.model.adapter()).units();
  size_t pair_units = 0;
  for (size_t u = 0; u < after.size(); ++u) {
    const ParamStorage* unit = role.optimizer->units()[u];
    const bool is_pair = std::count(pairs.begin(), pairs.end(), unit) > 0;
    pair_units += is_pair;
    const double rate = is_pair ? 1.5e-3 : 5e-3;
    EXPECT_NEAR(greatest(after[u] - before[u]), rate, rate * 1e-5 + 2.4e-7) << unit->name();
  }
  EXPECT_EQ(pair_units, 2u);
  EXPECT_GT(after.size(), pair_units);
}

TEST(AdaptedRole, WhatCannotBeTrainedIsRefused) {
  Role zero{golden_model("llama_gqa"), nullptr, constant_settings(0), {.rank = 2, .targets = {"q"}, .also_train = {}}};
  zero.lora.learning_rate = 1e-3;
  EXPECT_THAT(error_of([&] { zero.enable_training(1); }), HasSubstr("lora.learning_rate follows the schedule"));
  Role twice{golden_model("llama_gqa"), nullptr, constant_settings(1), {.rank = 2, .targets = {"q"}, .also_train = {}}};
  twice.model.add_adapter({.rank = 2, .targets = {"q"}}, 1);
  EXPECT_THAT(error_of([&] { twice.enable_training(1); }), HasSubstr("is an adapter already"));
}

std::shared_ptr<Role> shared(Role role) { return std::make_shared<Role>(std::move(role)); }

TEST(RoleTable, RolesComeInItsOrder) {
  const auto settings = constant_settings(1e-3);
  Roles roles;
  EXPECT_THROW(roles.device(), InternalError);
  roles.critic = shared(trained_role("llama_reward", ModelKind::value, settings));
  roles.reference = shared({golden_model("llama_gqa"), nullptr, {}});
  roles.actor = shared(trained_role("llama_gqa", ModelKind::language, settings));
  std::vector<std::string> all, trained;
  std::vector<const Role*> met;
  roles.each([&](const RoleEntry& entry, const Role& role) { all.emplace_back(entry.name), met.push_back(&role); });
  roles.each_trained([&](const RoleEntry& entry, const Role&) { trained.emplace_back(entry.name); });
  EXPECT_THAT(all, ElementsAre("actor", "reference", "critic"));
  EXPECT_THAT(met, ElementsAre(roles.actor.get(), roles.reference.get(), roles.critic.get()));
  EXPECT_THAT(trained, ElementsAre("actor", "critic"));
  EXPECT_EQ(&roles.device(), &roles.actor->model.device());
}

const RoleEntry& entry_of(uint32_t bit) {
  for (const auto& entry : kRoles)
    if (entry.bit == bit) return entry;
  DSE_CHECK(false, "no role {}", bit);
}

TEST(RoleTable, TheFirstTrainedRoleHasTheStagesOwnFolders) {
  struct Row {
    uint32_t role, trained;
    std::string prefix, model, average, adapter;
  };
  const Row rows[] = {
      {DSE_ACTOR, DSE_ACTOR, "", "model", "ema", "adapter"},               // sft
      {DSE_REWARD, DSE_REWARD, "", "model", "ema", "adapter"},             // reward
      {DSE_ACTOR, DSE_ACTOR | DSE_CRITIC, "", "model", "ema", "adapter"},  // ppo
      {DSE_CRITIC, DSE_ACTOR | DSE_CRITIC, "critic_", "critic", "critic_ema", "critic_adapter"},
      {DSE_CRITIC, DSE_CRITIC, "", "model", "ema", "adapter"},  // a critic alone
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(fmt::format("role {} of {}", row.role, row.trained));
    EXPECT_EQ(prefix_of(entry_of(row.role), row.trained), row.prefix);
    const auto folders = folders_of(entry_of(row.role), row.trained);
    EXPECT_EQ(folders.model, row.model);
    EXPECT_EQ(folders.average, row.average);
    EXPECT_EQ(folders.adapter, row.adapter);
  }
  EXPECT_THROW(prefix_of(entry_of(DSE_ACTOR), 0), InternalError);
}

}  // namespace
}  // namespace dsengine

// What a checkpoint keeps does not tell how parameters lie: one layout writes what another goes on from.
#include "rl/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "../model/golden_models.h"
#include "base/philox.h"
#include "comm/local.h"
#include "files/output_file.h"
#include "param/placement.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

Roles actor_of(Model model) {
  auto role = std::make_shared<Role>(Role{std::move(model), nullptr, {}});
  role->settings.weight_decay = 0.1, role->settings.grad_clip = 0, role->settings.ema_decay = 0.9;
  role->enable_training(1);
  return {.actor = std::move(role), .critic = nullptr, .reward = nullptr, .reference = nullptr};
}

StageState at_step(int64_t step) {
  StageState state;
  state.step = step;
  return state;
}

// A step on gradients that are the same for each parameter, wherever its rows lie.
void step(Role& role, uint64_t number) {
  LocalCommunicator alone;
  for (auto* unit : role.model.units())
    write_placed(*unit, unit->grad(), [&](const std::string& place, const at::Tensor& rows) {
      const Philox draws(number, Purpose::evaluate, name_hash(place));
      for (int64_t i = 0; i < rows.numel(); ++i) rows.mutable_data_ptr<float>()[i] = float(draws.normal(uint64_t(i)));
    });
  role.step(1e-2, alone);
}

// Weights and average, in the parameters' own shapes.
std::map<std::string, at::Tensor> kept(const Role& role) {
  std::map<std::string, at::Tensor> result;
  const auto& units = role.optimizer->units();
  for (size_t u = 0; u < units.size(); ++u) {
    const auto keep = [&](const char* what, const at::Tensor& span) {
      read_placed(*units[u], span,
                  [&](const std::string& place, const at::Tensor& rows) { result[what + place] = rows.clone(); });
    };
    keep("weights ", units[u]->trained_flat()), keep("average ", role.average[u]);
  }
  return result;
}

class CheckpointLayouts : public testing::TestWithParam<const char*> {
 protected:
  CheckpointLayouts() {
    fs::remove_all(folder);
    fs::create_directories(folder / "ppo");
    write_text(folder / "ppo/metrics.jsonl", ""), write_text(folder / "ppo/eval.jsonl", "");
  }
  ~CheckpointLayouts() override { fs::remove_all(folder); }
  Roles plain() const { return actor_of(golden_model(GetParam())); }
  Roles mixed() const { return actor_of(interleaved_model(GetParam(), ModelKind::language, 4)); }
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("dse_checkpoint_layouts_{}", getpid());
};

TEST_P(CheckpointLayouts, AnotherLayoutGoesOn) {
  const StageDirectory stage(folder / "ppo", "settings", Changes::refused);
  const Roles first = plain(), same = plain(), other = mixed();
  step(*first.actor, 0), step(*first.actor, 1);
  save_checkpoint(stage, 2, at_step(2), first);
  for (const Roles* roles : {&same, &other}) {
    const auto found = newest_checkpoint(stage);
    ASSERT_TRUE(found);
    load_checkpoint(*found, *roles);
  }
  // What is kept of the other is the same again.
  save_checkpoint(stage, 2, at_step(3), other);
  EXPECT_EQ(read_json(stage.checkpoints() / "step-00000002/manifest.json").at("files"),
            read_json(stage.checkpoints() / "step-00000003/manifest.json").at("files"));
  // Moments count in the next step.
  for (const Roles* roles : {&first, &same, &other}) step(*roles->actor, 2);
  const auto expected = kept(*first.actor), again = kept(*same.actor), moved = kept(*other.actor);
  ASSERT_EQ(expected.size(), moved.size());
  for (const auto& [name, rows] : expected) {
    EXPECT_TRUE(same_bits(rows, again.at(name))) << name;
    EXPECT_TRUE(same_bits(rows, moved.at(name))) << name;
  }
  const Roles unmoved = plain();
  EXPECT_FALSE(same_bits(expected.begin()->second, kept(*unmoved.actor).begin()->second));
}

INSTANTIATE_TEST_SUITE_P(Golden, CheckpointLayouts, testing::Values("llama_mha", "gpt2", "gpt_neox"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace dsengine

// Checkpoints of two roles, one of them an adapter: what is loaded is what was saved, bit for bit, and goes on alike;
// what is damaged, interrupted or another's is told apart.
#include "rl/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/check.h"
#include "files/sealed.h"
#include "plugin/fixtures.h"
#include "rl/trained_roles.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

LocalCommunicator alone;

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() {
    fs::create_directories(path);
    write_text(path / "metrics.jsonl", "{\"step\": 1}\n{\"step\": 2}\n");
    write_text(path / "eval.jsonl", "{\"step\": 0}\n");
  }

  static Roles roles(int64_t rank = 2) {
    auto settings = constant_settings(1e-2);
    settings.ema_decay = 0.9, settings.weight_decay = 0.1;
    Roles made;
    made.actor = std::make_shared<Role>(trained_role("llama_gqa", ModelKind::language, settings));
    settings.ema_decay = 0;
    made.critic = std::make_shared<Role>(
        trained_role("llama_reward", ModelKind::value, settings,
                     {.rank = rank, .targets = {"q", "k", "v", "down"}, .also_train = {"norms"}}));
    return made;
  }
  static void step(const Roles& all, int seed) {
    all.each_trained([&](const RoleEntry&, Role& role) {
      put_gradients(role, seed);
      role.step(1e-2, alone);
    });
  }
  StageDirectory stage(const std::string& fingerprint = "settings", Changes changes = Changes::refused) const {
    return {path, fingerprint, changes};
  }
  static StageState state_of(int64_t step, uint64_t metrics_offset = 0) {
    StageState state;
    state.step = step, state.max_steps = 9, state.metrics_offset = metrics_offset, state.environment = Json::object();
    return state;
  }
  // Steps and saves, one checkpoint a step.
  void save_steps(const Roles& all, int64_t count, int64_t keep) const {
    for (int64_t s = 1; s <= count; ++s) {
      step(all, int(s));
      save_checkpoint(stage(), keep, state_of(s), all);
    }
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path / "checkpoints")) found.push_back(entry.path().filename());
    std::sort(found.begin(), found.end());
    return found;
  }
  fs::path checkpoint(int64_t step) const { return path / "checkpoints" / fmt::format("step-{:08}", step); }

  ScratchFolder scratch;
  const fs::path path = scratch.path() / "sft";
};

void expect_same(const Role& a, const Role& b) {
  const auto values = trained_values(a), others = trained_values(b);
  ASSERT_EQ(values.size(), others.size());
  ASSERT_EQ(a.average.size(), b.average.size());
  for (size_t u = 0; u < values.size(); ++u) {
    EXPECT_TRUE(same_bits(values[u], others[u])) << "weights " << u;
    EXPECT_TRUE(same_bits(a.optimizer->moments()[u].mean(), b.optimizer->moments()[u].mean())) << "first " << u;
    EXPECT_TRUE(same_bits(a.optimizer->moments()[u].square(), b.optimizer->moments()[u].square())) << "second " << u;
    EXPECT_TRUE(a.average.empty() || same_bits(a.average[u], b.average[u])) << "average " << u;
  }
  EXPECT_EQ(a.optimizer->steps(), b.optimizer->steps());
}

TEST_F(Checkpoints, WhatIsLoadedIsWhatWasSavedAndGoesOnAlike) {
  const Roles saved = roles(), loaded = roles();
  for (int s = 0; s < 3; ++s) step(saved, s);
  const std::string bytes("\0\xff\x10 a", 5);
  save_checkpoint(stage(), 2, {3, 7, 2, 12, 5, bytes, Json{{"threads", 2}}}, saved);
  const auto found = newest_checkpoint(stage());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, checkpoint(3));
  EXPECT_EQ(found->state.step, 3);
  EXPECT_EQ(found->state.max_steps, 7);
  EXPECT_EQ(found->state.epochs, 2);
  EXPECT_EQ(found->state.metrics_offset, 12u);
  EXPECT_EQ(found->state.eval_offset, 5u);
  EXPECT_EQ(found->state.algorithm_state, bytes);
  EXPECT_EQ(found->state.environment, (Json{{"threads", 2}}));

  load_checkpoint(*found, loaded);
  expect_same(*saved.actor, *loaded.actor);
  expect_same(*saved.critic, *loaded.critic);
  EXPECT_EQ(loaded.actor->optimizer->steps(), 3);
  EXPECT_GT(greatest(loaded.actor->average[0] - trained_values(*loaded.actor)[0]), 1e-3);
  step(saved, 8), step(loaded, 8);
  expect_same(*saved.actor, *loaded.actor);
  expect_same(*saved.critic, *loaded.critic);
}

TEST_F(Checkpoints, TheOldestAreRemoved) {
  const Roles all = roles();
  save_steps(all, 4, 2);
  EXPECT_THAT(names(), ElementsAre("step-00000003", "step-00000004"));
  load_checkpoint(*newest_checkpoint(stage()), all);
  prune_checkpoints(stage(), 1);
  EXPECT_THAT(names(), ElementsAre("step-00000004"));
}

TEST_F(Checkpoints, WhereThereIsNoneNothingIsFound) {
  EXPECT_FALSE(newest_checkpoint(stage()));
  fs::create_directories(path / "checkpoints/of-another");
  EXPECT_FALSE(newest_checkpoint(stage()));
}

void flip_bit(const fs::path& file) {
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 1);
  write_text(file, bytes);
}

struct Damage {
  const char *name, *file;
  void (*make)(const fs::path&);
};
std::ostream& operator<<(std::ostream& out, const Damage& damage) { return out << damage.name; }
const Damage kDamages[] = {
    {"Truncated", "actor.safetensors", [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 4); }},
    {"Flipped", "critic.safetensors", flip_bit},
    {"Missing", "critic.safetensors", [](const fs::path& file) { fs::remove(file); }},
    {"ManifestFlipped", "manifest.json", flip_bit},
    // What a save leaves that the machine interrupted, were it not written aside.
    {"WithoutManifest", "manifest.json", [](const fs::path& file) { fs::remove(file); }},
};

class DamagedCheckpoint : public Checkpoints, public testing::WithParamInterface<Damage> {};
INSTANTIATE_TEST_SUITE_P(Damages, DamagedCheckpoint, testing::ValuesIn(kDamages),
                         [](const auto& damage) { return damage.param.name; });

TEST_P(DamagedCheckpoint, IsPutAsideForTheOneBefore) {
  const Roles all = roles(), before = roles();
  save_steps(all, 2, 3);
  step(before, 1);
  GetParam().make(checkpoint(2) / GetParam().file);
  const auto found = newest_checkpoint(stage());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.step, 1);
  EXPECT_THAT(names(), ElementsAre("damaged-step-00000002", "step-00000001"));
  load_checkpoint(*found, all);
  expect_same(*all.actor, *before.actor);
  expect_same(*all.critic, *before.critic);
}

TEST_P(DamagedCheckpoint, EndsTheRunByNameWhereThereIsNoOther) {
  save_steps(roles(), 1, 3);
  GetParam().make(checkpoint(1) / GetParam().file);
  EXPECT_THAT(error_of([&] { newest_checkpoint(stage()); }),
              AllOf(HasSubstr("no checkpoint of sft is whole"), HasSubstr((checkpoint(1) / GetParam().file).string()),
                    HasSubstr("delete " + path.string())));
  EXPECT_THAT(names(), ElementsAre("step-00000001")) << "it is left where it was";
}

// A save is written aside, under a name that no checkpoint has.
TEST_F(Checkpoints, AnInterruptedSaveIsPassedOver) {
  save_steps(roles(), 1, 3);
  fs::copy(checkpoint(1), path / "checkpoints/.step-00000002.tmp-999999");
  const auto found = newest_checkpoint(stage());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.step, 1);
}

// Larger ones than the checkpoint has, and smaller ones.
TEST_F(Checkpoints, OfOtherShapesIsRefused) {
  save_steps(roles(3), 1, 3);
  for (const int64_t rank : {2, 4}) {
    const Roles other = roles(rank);
    EXPECT_THAT(error_of([&] { load_checkpoint(*newest_checkpoint(stage()), other); }),
                AllOf(HasSubstr(checkpoint(1).string()), HasSubstr("of critic does not fit"), HasSubstr("lora_A")));
  }
}

// No older checkpoint mends what another program or other settings made: they are not looked at.
TEST_F(Checkpoints, OfAnotherFormatStageOrSettingsIsRefused) {
  save_steps(roles(), 2, 3);
  const auto refused = [&](const StageDirectory& asked) {
    const std::string error = error_of([&] { newest_checkpoint(asked); });
    EXPECT_THAT(error, HasSubstr(checkpoint(2).string()));
    EXPECT_THAT(names(), ElementsAre("step-00000001", "step-00000002"));
    return error;
  };
  EXPECT_THAT(refused(stage("others")), HasSubstr("is of another stage or of other settings"));
  const fs::path file = checkpoint(2) / "manifest.json";
  const Json manifest = read_sealed(file);
  const auto with = [&](const char* key, const Json& value) {
    Json changed = manifest;
    changed[key] = value;
    write_text(file, sealed_text(changed));
    return refused(stage());
  };
  EXPECT_THAT(with("format", 4), HasSubstr("checkpoint format 4 is not known"));
  EXPECT_THAT(with("format", 2), HasSubstr("checkpoint format 2 is of an older version"));
  EXPECT_THAT(with("stage", "ppo"), HasSubstr("is of another stage or of other settings"));
}

TEST_F(Checkpoints, AFolderOfAnotherStepIsDamaged) {
  save_steps(roles(), 2, 3);
  fs::rename(checkpoint(2), checkpoint(5));
  EXPECT_EQ(newest_checkpoint(stage())->state.step, 1);
}

// The metrics that belong to the checkpoint's steps are watched over; what came after them is cut off by whoever
// resumes.
TEST_F(Checkpoints, MetricsThatAreOthersAreTold) {
  const Roles all = roles();
  step(all, 1);
  save_checkpoint(stage(), 2, state_of(1, 12), all);
  write_text(path / "metrics.jsonl", "{\"step\": 1}\nwhat came after");
  EXPECT_TRUE(newest_checkpoint(stage()));
  write_text(path / "metrics.jsonl", "{\"step\": 8}\n");
  EXPECT_THAT(error_of([&] { newest_checkpoint(stage()); }),
              AllOf(HasSubstr("the first 12 bytes of"), HasSubstr("metrics.jsonl have changed")));
  EXPECT_TRUE(newest_checkpoint(stage("settings", Changes::accepted)));
}

}  // namespace
}  // namespace dsengine

// The models an algorithm works with, each trained where it has an optimizer.
//
//   Role actor{load_model(…), nullptr, stage.actor.optimizer, stage.actor.lora};
//   actor.enable_training(seed);                  // gradients, moments, an adapter or an average where asked for
//   Model smooth = actor.averaged();
//   roles.each([](const RoleEntry& entry, Role& role) { … });
//
// kRoles is all that is said of a role: one more is one more member of Roles and one more entry.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "dsengine/abi.h"
#include "memory/phases.h"
#include "model/model.h"
#include "param/adamw.h"
#include "run/config.h"

namespace dsengine {

struct Role {
  Model model;
  std::unique_ptr<AdamW> optimizer;
  OptimizerConfig settings;
  LoraConfig lora{};
  OffloadConfig offload{};
  std::vector<at::Tensor> average{};  // of each trained unit, where settings.ema_decay asks for it

  // seed: of a new adapter's draws. sharding: among whom moments and gradients are shared out.
  void enable_training(uint64_t seed, const Sharding& sharding = {});
  // One update and the average's; the gradient norm before clipping.
  double step(double learning_rate, Communicator& ranks);

  Traffic averages_traffic{};
  const Device& average_memory() const;
  // The model under the averaged weights.
  Model averaged() const;
  // What was brought from where it is kept since the last call: weights and gradients for a section, what is updated
  // elsewhere.
  Traffic take_traffic();
};

struct RoleEntry;

struct Roles {
  std::shared_ptr<Role> actor, critic, reward;  // null: not needed; reward: trained as a reward model
  std::shared_ptr<Role> reference;
  // The reference is the actor with its adapter off, not a model of its own.
  bool reference_is_base = false;

  // f(entry, role) for each that there is, in the order of kRoles.
  template <class F>
  void each(const F& f) const;
  template <class F>
  void each_trained(const F& f) const;
  // Where all of them live; there is at least one.
  const Device& device() const;
};

struct RoleEntry {
  const char* name;   // in logs and checkpoints
  const char* title;  // in messages
  uint32_t bit;       // DSE_ACTOR, …
  ModelKind kind;
  std::shared_ptr<Role> Roles::*role;
  RoleConfig StageConfig::*config;  // how it is trained; null: it never is
  Phase phase;                      // that its forward and backward belong to
};

// Where several are trained, the first is the one that the stage is named for: its folders and metrics have no prefix.
inline constexpr RoleEntry kRoles[] = {
    {"actor", "actor", DSE_ACTOR, ModelKind::language, &Roles::actor, &StageConfig::actor, Phase::actor},
    {"reference", "reference", DSE_REFERENCE, ModelKind::language, &Roles::reference, nullptr, Phase::score},
    {"reward", "reward model", DSE_REWARD, ModelKind::value, &Roles::reward, &StageConfig::actor, Phase::actor},
    {"critic", "critic", DSE_CRITIC, ModelKind::value, &Roles::critic, &StageConfig::critic, Phase::critic},
};

// "" or "critic_": before the names of what a trained role leaves. trained: the stage's, DSE_ACTOR | …
std::string prefix_of(const RoleEntry& entry, uint32_t trained);

// The names of the folders that a trained role leaves in its stage's.
struct RoleFolders {
  std::string model, average, adapter;
};
RoleFolders folders_of(const RoleEntry& entry, uint32_t trained);

template <class F>
void Roles::each(const F& f) const {
  for (const auto& entry : kRoles)
    if (const auto& role = this->*entry.role) f(entry, *role);
}

template <class F>
void Roles::each_trained(const F& f) const {
  each([&](const RoleEntry& entry, Role& role) {
    if (entry.config && role.optimizer) f(entry, role);
  });
}

}  // namespace dsengine

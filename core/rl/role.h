// The models an algorithm works with, each trained where it has an optimizer.
//
//   Role actor{Model::load(…), nullptr, stage.actor.optimizer, stage.actor.lora};
//   actor.enable_training(seed);                  // gradients, moments, an adapter or an average where asked for
//   Model smooth = actor.averaged();
#pragma once
#include <memory>
#include <vector>

#include "model/model.h"
#include "param/adamw.h"
#include "run/config.h"

namespace dsengine {

struct Role {
  Model model;
  std::unique_ptr<AdamW> optimizer;
  OptimizerConfig settings;
  LoraConfig lora{};
  std::vector<at::Tensor> average{};  // of each trained unit, where settings.ema_decay asks for it

  // seed: of a new adapter's draws.
  void enable_training(uint64_t seed);
  // One update and the average's; the gradient norm before clipping.
  double step(double learning_rate, Communicator& ranks);
  // The model under the averaged weights.
  Model averaged() const;
};

struct Roles {
  std::shared_ptr<Role> actor, critic, reward;  // null: not needed; reward: trained as a reward model
  std::shared_ptr<Role> reference;
  // The reference is the actor with its adapter off, not a model of its own.
  bool reference_is_base = false;

  // Where all of them live; there is at least one.
  const Device& device() const;
};

}  // namespace dsengine

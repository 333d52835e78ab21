// How a stage's rows are cut into updates, and how fast each learns.
//
//   const Batching batching = batching_of(stage, algorithm.needs());
//   const double rate = learning_rate_at(settings, step, steps);
#pragma once
#include <cstdint>

#include "dsengine/abi.h"
#include "rl/importance.h"
#include "run/config.h"

namespace dsengine {

struct Batching {
  int64_t mini_batch_size = 32, micro_batch_size = 32;  // rows
  int64_t epochs = 1;
  double temperature = 1.0;
  double target_kl = 0;  // updates on a rollout end once a minibatch's KL passes 1.5 times this; 0: never
  ImportanceCorrection correction = {};  // of rollouts
  bool own_rollouts = false;             // answers come from the actor as it is before the update, at this temperature
};

// As the stage has it for an algorithm of these needs.
Batching batching_of(const StageConfig& stage, const dse_needs& needs);

// Records, pairs or prompts that a step takes.
int64_t items_per_step(const StageConfig& stage, const dse_needs& needs);

// Learning rate at `step` of `steps`: linear warm-up, then the schedule down to min_lr_ratio.
double learning_rate_at(const OptimizerConfig& settings, int64_t step, int64_t steps);

}  // namespace dsengine

#include "rl/batching.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dsengine {

double learning_rate_at(const OptimizerConfig& s, int64_t step, int64_t steps) {
  if (step < s.warmup_steps) return s.learning_rate * double(step + 1) / double(s.warmup_steps);
  if (s.schedule == Schedule::constant) return s.learning_rate;
  const double span = double(std::max<int64_t>(1, steps - s.warmup_steps));
  const double done = std::min(1.0, double(step - s.warmup_steps) / span);
  const double fall = s.schedule == Schedule::cosine ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
  return s.learning_rate * (s.min_lr_ratio + (1 - s.min_lr_ratio) * fall);
}

Batching batching_of(const StageConfig& stage, const dse_needs& needs) {
  const int64_t micro = stage.micro_batch_size > 0 ? stage.micro_batch_size : stage.mini_batch_size;
  const bool sampled = needs.source == DSE_SOURCE_ROLLOUT;
  return {.mini_batch_size = stage.mini_batch_size,
          .micro_batch_size = std::min(micro, stage.mini_batch_size),
          .epochs = sampled ? stage.ppo_epochs : 1,
          .temperature = sampled && stage.rollout.temperature > 0 ? stage.rollout.temperature : 1.0,
          .target_kl = stage.target_kl,
          .correction = {sampled ? stage.rollout.correction : Correction::none, stage.rollout.correction_bound},
          .own_rollouts = sampled && stage.rollout.replay.empty()};
}

int64_t items_per_step(const StageConfig& stage, const dse_needs& needs) {
  if (needs.source == DSE_SOURCE_ROLLOUT) return stage.rollout.batch_size;
  return needs.source == DSE_SOURCE_PAIRS ? std::max<int64_t>(1, stage.mini_batch_size / 2) : stage.mini_batch_size;
}

}  // namespace dsengine

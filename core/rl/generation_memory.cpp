#include "rl/generation_memory.h"

#include <chrono>

#include "base/check.h"

namespace dsengine {

void check_weight_format(WeightFormat format, at::ScalarType dtype) {
  DSE_CHECK_USER(format == WeightFormat::fp32 || dtype == at::kFloat,
                 "rollout.weights = '{}' is for dtype = 'fp32': models compute in bf16 here, whose weights are narrow "
                 "already; leave it at fp32",
                 name_of(format));
}

Packing packing_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16:
      return Packing::bf16;
    case WeightFormat::int8:
      return Packing::int8;
    default:
      return Packing::none;
  }
}

GenerationMemory::GenerationMemory(Phases& phases, Scheduler& scheduler, Model& model, const RolloutConfig& config) {
  check_weight_format(config.weights, model.dtype());
  model.set_rollout_weights(packing_of(config.weights));
  phases.on_enter(Phase::generate, [this, &model] {
    const auto began = std::chrono::steady_clock::now();
    model.pack_rollout_weights();
    pack_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  });
  phases.on_leave(Phase::generate, [&scheduler, &model, keep = config.keep_cache] {
    if (!keep) scheduler.release();
    model.drop_rollout_weights();
  });
}

}  // namespace dsengine
